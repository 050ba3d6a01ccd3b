"""Entries on their way into the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from persistence.records import LedgerEntry


@dataclass(slots=True)
class Booking:
    """`owed`: nothing took it, and its caller knows what has become of it. `booked_at`: the loop's time."""

    entry: LedgerEntry
    committed: asyncio.Future[None]
    booked_at: float
    trace: str | None
    owed: bool = False


@dataclass(frozen=True, slots=True)
class Backlog:
    """Booked entries that are neither in the store nor in the queue; of these `spooled` ones found no place. `age_s`:
    of the oldest, 0 where there is none."""

    entries: int
    spooled: int
    age_s: float


def backlog_of(owed: Sequence[Booking], waiting: Sequence[Booking]) -> Backlog:
    """`owed`: those that nothing took; an entry may be among both."""
    pending = {id(each): each for each in (*owed, *waiting)}
    oldest = min((each.booked_at for each in pending.values()), default=None)
    age_s = 0.0 if oldest is None else asyncio.get_running_loop().time() - oldest
    return Backlog(len(pending), len(owed), age_s)
