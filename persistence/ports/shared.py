"""What processes share for a while."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..shared_records import Demand, Replayed, Shortage


class SharedValues(Protocol):
    """Small values that all processes see, each forgotten after its time. Every method raises StoreUnavailableError.

    A key belongs to an organisation, or to the operator (`organisation` None); so no two of them meet.
    """

    async def claim(self, organisation: str | None, key: str, value: str, *, seconds: float) -> str | None:
        """None where the value now stands there, also where it did already: a claim may be made again. Else the one
        that does, which stays."""
        ...

    async def read(self, organisation: str | None, key: str) -> str | None: ...

    async def write(self, organisation: str | None, key: str, value: str, *, seconds: float) -> None: ...

    async def release(self, organisation: str | None, key: str, value: str) -> bool:
        """Forget it, if it is still that value; whether it was."""
        ...


class Events(Protocol):
    """Messages between processes, to whoever listens as they are sent, and to nobody later."""

    async def publish(self, channel: str, message: str) -> None:
        """Returns when it is on its way. Raises StoreUnavailableError."""
        ...

    def listen(self, channel: str) -> AbstractAsyncContextManager[AsyncGenerator[str, None]]:
        """From the entering on, what is sent to the channel. While the server is away nothing comes, and what was sent
        meanwhile is lost; then it goes on by itself. A listener that lags LISTENER_BACKLOG messages behind loses the
        oldest. Entering raises StoreUnavailableError."""
        ...


LISTENER_BACKLOG = 1_000


class Counters(Protocol):
    """Amounts that all processes count together. Every method raises StoreUnavailableError."""

    async def take(self, organisation: str, demands: Sequence[Demand]) -> Shortage | None:
        """All of them, and None; or nothing at all, and the first that can't be met. The organisation's are taken in
        one step, then the operator's: where those can't be, the organisation's are given back, now or with a later
        take. Cancelled, or where its own answer is lost, some may stay taken until their time is over."""
        ...

    async def give(self, organisation: str, demands: Sequence[Demand], *, seconds_ago: float = 0.0) -> None:
        """Take back what was taken, never below nothing. What has begun anew since `seconds_ago`, when it was taken,
        stays as it is."""
        ...


class Replays(Protocol):
    """The events of streams, kept for whoever comes back for them. Every method raises StoreUnavailableError."""

    async def append(self, organisation: str, stream: str, events: Sequence[Replayed], *, seconds: float) -> None:
        """Each sequence is greater than those before; one that is not is left out, so that appending twice is
        appending once. The stream is forgotten `seconds` after the last append; of its events REPLAYED_AT_MOST
        or somewhat more are kept, the newest."""
        ...

    async def read(self, organisation: str, stream: str, *, after: int, limit: int) -> Sequence[Replayed] | None:
        """Those with greater sequences than `after` (-1: from the first), oldest first, as far as there are any now.
        None where there is no such stream, or no more, or where events after `after` have been forgotten."""
        ...


REPLAYED_AT_MOST = 10_000
