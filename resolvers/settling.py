"""What calls came to is told to the limits, in groups: while one is told, the next gathers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from persistence.ports import Reservations, StoreUnavailableError
from persistence.records import LedgerEntry
from persistence.reservation_records import Allowance, Settled

from .beside import beside

MAX_WAITING = 20_000
AT_ONCE = 100
TRIAL_INTERVAL_S = 1.0

log = structlog.get_logger("limits")


@dataclass(frozen=True, slots=True)
class Settlement:
    """`truth`: what the attempt came to, by whom made it. `done` resolves when it is told, or can't be now: then its
    lease may run out. `counted` is called once it is told, however late."""

    store: Reservations
    organisation: str
    reservation: str
    asked: Sequence[Allowance]
    amounts: Sequence[int]
    truth: LedgerEntry
    done: asyncio.Future[None]
    counted: Callable[[], None]


class Settler:
    """Opened by `open_settler`. `order`: see `LeaseKeeper`; `left` is told of what the store has left to somebody who
    found its lease over."""

    def __init__(self, order: asyncio.Lock, left: Callable[[Settlement], None] | None) -> None:
        self._order = order
        self._left = left
        self._waiting: list[Settlement] = []
        self._wake = asyncio.Event()

    def put(self, settlement: Settlement) -> None:
        if len(self._waiting) >= MAX_WAITING:
            log.warning("what a call came to is not counted", reservation=settlement.reservation)
            _done(settlement)
            return
        self._waiting.append(settlement)
        self._wake.set()

    async def work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not await self.flush():
                await asyncio.sleep(TRIAL_INTERVAL_S)
                self._wake.set()

    async def flush(self) -> bool:
        """Tells what waits; whether all could be told. What can't be waits on, and nobody waits for it."""
        batch, self._waiting = self._waiting, []
        groups: defaultdict[tuple[int, str], list[Settlement]] = defaultdict(list)
        for each in batch:
            groups[id(each.store), each.organisation].append(each)
        away: set[int] = set()
        for (store, _), group in groups.items():
            for start in range(0, len(group), AT_ONCE):
                part = group[start : start + AT_ONCE]
                if store in away:
                    self._waiting.extend(part)
                elif not await self._tell(part):
                    away.add(store)
        return not away

    async def _tell(self, group: Sequence[Settlement]) -> bool:
        told = [Settled(each.reservation, each.asked, each.amounts) for each in group]
        try:
            async with self._order:
                left = await group[0].store.settle(group[0].organisation, told)
        except StoreUnavailableError as error:
            log.warning("what calls came to is counted later", calls=len(group), reason=str(error))
            self._waiting.extend(group)
            return False
        finally:
            for each in group:
                _done(each)
        for each in group:
            each.counted()
            if self._left is not None and each.reservation in left:
                self._left(each)
        return True


@asynccontextmanager
async def open_settler(order: asyncio.Lock, left: Callable[[Settlement], None] | None = None) -> AsyncIterator[Settler]:
    """What waits at its end is told, as far as it can be."""
    settler = Settler(order, left)
    async with beside("limits-settler", settler.work):
        yield settler
    await settler.flush()


def _done(settlement: Settlement) -> None:
    if not settlement.done.done():
        settlement.done.set_result(None)
