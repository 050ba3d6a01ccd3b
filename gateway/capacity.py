"""How much a process takes on at once: operations of everybody, sockets of each principal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from resolvers.errors import ServiceUnavailableError
from resolvers.principal import Principal

RETRY_AFTER_MS = 1_000
SHARE = 0.1


class OverloadedError(ServiceUnavailableError):
    """Nothing was done, so that asking again is safe: here a second later, or at once of another process."""

    retry_after_ms = RETRY_AFTER_MS


class Capacity:
    """Operations in flight over HTTP and sockets, streams while they run included. `limit` of them are taken; one more
    is refused at once, so that those that run go on as quickly as they do. A SHARE of the limit is taken besides, of
    organisations that have less than that under way: else one, by streams that cost it nothing, shut out all others.
    `shed` were refused."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._share = int(limit * SHARE)
        self._held: Counter[str] = Counter()  # by organisation
        self.in_flight = 0
        self.shed = 0

    @contextmanager
    def operation(self, principal: Principal) -> Iterator[None]:
        """Raises OverloadedError."""
        organisation = principal.organisation
        room = self.limit + (self._share if self._held[organisation] < self._share else 0)
        if self.in_flight >= room:
            self.shed += 1
            raise OverloadedError("the server is at the most that it does at once: ask again in a second")
        self.in_flight += 1
        self._held[organisation] += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._held[organisation] -= 1
            if not self._held[organisation]:
                del self._held[organisation]


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
