"""How much a process takes on at once: operations of everybody, sockets of each principal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from resolvers.errors import ServiceUnavailableError
from resolvers.principal import Principal

RETRY_AFTER_MS = 1_000
SHARE = 0.1
BYTES_A_PLACE = 256 * 1024
"""Of an operation's body."""


class OfOrganisation(Protocol):
    @property
    def organisation(self) -> str: ...


class OverloadedError(ServiceUnavailableError):
    """Nothing was done, so that asking again is safe: here a second later, or at once of another process."""

    retry_after_ms = RETRY_AFTER_MS


class Capacity:
    """Operations in flight over HTTP and sockets, streams while they run included. `limit` of them are taken; one more
    is refused at once, so that those that run go on as quickly as they do. A SHARE of the limit is taken besides, of
    organisations that have less than that under way: else one, by streams that cost it nothing, shut out all others.
    One with a large body takes the places of several, for it is kept in memory: with the default limit, all bodies
    together take 256 MiB. `shed` were refused."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._share = int(limit * SHARE)
        self._held: Counter[str] = Counter()  # places by organisation
        self._taken = 0
        self.in_flight = 0
        self.shed = 0

    @contextmanager
    def operation(self, whose: OfOrganisation) -> Iterator[Place]:
        """Raises OverloadedError."""
        place = self.place(whose)
        place.take(1)
        self.in_flight += 1
        try:
            yield place
        finally:
            self.in_flight -= 1
            place.leave()

    def place(self, whose: OfOrganisation) -> Place:
        """None yet."""
        return Place(self, whose.organisation)


class Place:
    """Of one operation, or of a message that is on its way, as large as it has become."""

    def __init__(self, capacity: Capacity, organisation: str) -> None:
        self._capacity = capacity
        self._organisation = organisation
        self._places = 0

    def hold(self, size: int) -> None:
        """Of its body there are so many bytes. Raises OverloadedError."""
        more = 1 + size // BYTES_A_PLACE - self._places
        if more > 0:
            self.take(more)

    def take(self, places: int) -> None:
        """Whatever it takes, it has room where it is alone. Raises OverloadedError."""
        capacity = self._capacity
        fair = capacity._held[self._organisation] + places <= capacity._share
        room = capacity.limit + (capacity._share if fair else 0)
        if capacity._taken + places > room and capacity._taken > self._places:
            capacity.shed += 1
            raise OverloadedError("the server is at the most that it does at once: ask again in a second")
        capacity._taken += places
        capacity._held[self._organisation] += places
        self._places += places

    def leave(self) -> None:
        self._capacity._taken -= self._places
        self._capacity._held[self._organisation] -= self._places
        self._places = 0
        if not self._capacity._held[self._organisation]:
            del self._capacity._held[self._organisation]


class SocketQuota:
    """Sockets by who opened them: an API key, with the tokens that it minted, or a token's subject."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return self._open.total()

    @contextmanager
    def socket(self, principal: Principal) -> Iterator[None]:
        """Raises OverloadedError."""
        name = principal.organisation, principal.key_id or principal.subject
        if self._open[name] >= self._limit:
            raise OverloadedError(f"too many sockets: {self._limit} are open for this key or subject")
        self._open[name] += 1
        try:
            yield
        finally:
            self._open[name] -= 1
            if not self._open[name]:
                del self._open[name]
