"""Items that have to be moved where nobody holds them: of batches that are cancelled, late or begun anew, and those
that were lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from persistence.batch_records import OPEN, Batch, BatchMode, BatchState, Item, ItemError, ItemState, Move
from persistence.ports import BatchStore, JobQueue

from .moving import Mover
from .verdicts import MAX_LOST

AT_ONCE = 200
REQUEUE_S = 60.0
"""A ticket that nobody used by then is taken for lost."""
_ANY_TIME = datetime(9000, 1, 1, tzinfo=UTC)

LATE = ItemError("DEADLINE_EXCEEDED", "the batch's deadline came before this item's turn")
ABANDONED = ItemError("INTERNAL", f"its worker ended {MAX_LOST} times while it was running")

log = structlog.get_logger("batches")


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Every method raises StoreUnavailableError. What can't be moved for now, as the store has it marked for another,
    is left to the dispatcher's next look. `now` is aware UTC."""

    store: BatchStore
    mover: Mover
    queue: JobQueue
    now: Callable[[], datetime]

    async def cancel(self, batch: Batch) -> None:
        """What is not at a vendor's already: that is cancelled there, and told by its results."""
        states = OPEN if batch.mode is BatchMode.LIVE else (ItemState.WAITING, ItemState.QUEUED)
        await self._sweep(
            batch,
            lambda: self._open(batch, states),
            lambda item: _moved(item, OPEN, ItemState.CANCELLED, revokes=True, ended_at=self._time()),
        )

    async def expire(self, batch: Batch) -> None:
        """What is running ends by its own deadline, which is no later."""
        states = ItemState.WAITING, ItemState.QUEUED
        await self._sweep(
            batch,
            lambda: self._open(batch, states),
            lambda item: _moved(item, states, ItemState.FAILED, error=LATE, revokes=True, ended_at=self._time()),
        )

    async def retry(self, batch: Batch) -> Batch | None:
        """Those that failed, or were cancelled too; afterwards it runs. None where some of them are left."""
        every = batch.state is BatchState.RETRYING_ALL
        states = (ItemState.FAILED, ItemState.CANCELLED) if every else (ItemState.FAILED,)
        whole = await self._sweep(
            batch,
            lambda: self.store.items(batch.organisation, batch.id, states=states, limit=AT_ONCE),
            lambda item: _moved(item, states, ItemState.WAITING, resets=True, revokes=True, due=self._time()),
        )
        if not whole:
            return None
        values = {"state": BatchState.RUNNING}
        return await self.store.change(batch.organisation, batch.id, expects=(batch.state,), values=values)

    async def lapsed(self, batch: Batch, *, tickets: int) -> None:
        """Whose worker, or ticket, is lost. One whose workers all end by it is given up. `tickets`: how many there
        should be in the queue."""
        states = ItemState.QUEUED, ItemState.RUNNING
        found = await self.store.due(batch.organisation, batch.id, states=states, now=self.now(), limit=AT_ONCE)
        if not found:
            return
        waits = any(item.state is ItemState.QUEUED for item in found) and (await self.queue.depth()).ready >= tickets
        await self.mover.move_all([self._again(item, ticket_waits=waits) for item in found], batch.mode)

    def _again(self, item: Item, *, ticket_waits: bool) -> Move:
        now = self._time()
        if item.state is ItemState.QUEUED:
            if ticket_waits:  # no second one
                due = now + timedelta(seconds=REQUEUE_S)
                return _moved(item, (ItemState.QUEUED,), ItemState.QUEUED, due=due)
            return _moved(item, (ItemState.QUEUED,), ItemState.WAITING, due=now)
        log.warning("an item's worker is lost", batch=item.batch, item=item.index, lost=item.lost + 1)
        if item.lost + 1 >= MAX_LOST:
            return _moved(item, (ItemState.RUNNING,), ItemState.FAILED, lost=1, error=ABANDONED, ended_at=now)
        return _moved(item, (ItemState.RUNNING,), ItemState.WAITING, lost=1, due=now)

    async def _sweep(
        self, batch: Batch, find: Callable[[], Awaitable[Sequence[Item]]], move: Callable[[Item], Move]
    ) -> bool:
        """Whether nothing is left to be found."""
        while found := await find():
            moved = await self.mover.move_all([move(item) for item in found], batch.mode)
            if all(item is None for item in moved):
                return False
        return True

    async def _open(self, batch: Batch, states: Sequence[ItemState]) -> Sequence[Item]:
        return await self.store.due(batch.organisation, batch.id, states=states, now=_ANY_TIME, limit=AT_ONCE)

    def _time(self) -> datetime:
        now = self.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _moved(item: Item, expects: tuple[ItemState, ...], to: ItemState, **values: object) -> Move:
    return Move(item.organisation, item.batch, item.index, expects, to, item.fence, **values)  # type: ignore[arg-type]  # the fields' own
