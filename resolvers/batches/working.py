"""A worker of batches: takes tickets from the queue, claims their items, and keeps its claims while it works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime, timedelta

import structlog

from persistence.batch_records import BatchMode, Item, ItemState, Move
from persistence.ports import BatchStore, Delivery, JobQueue, StoreUnavailableError

from ..beside import beside
from .moving import Mover
from .running import BatchesOf, ItemRunner
from .tickets import claim

LEASE_S = 30.0
PROLONGED_EVERY_S = 5.0
"""So soon, too, a worker stops what was taken from it: an item of a batch that is cancelled."""
REST_S, REST_AT_MOST_S = 0.5, 15.0

log = structlog.get_logger("batches")


class ItemWorker:
    """Runs until its task is cancelled; then what is in hand may take `drain_s` to its end, and is given back.
    `prefetch`: how many items it has in hand at most. `now` is aware UTC."""

    def __init__(
        self,
        queue: JobQueue,
        store: BatchStore,
        mover: Mover,
        runner: ItemRunner,
        *,
        prefetch: int,
        drain_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._store = store
        self._mover = mover
        self._runner = runner
        self._prefetch = prefetch
        self._drain_s = drain_s
        self._now = now
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[tuple[str, str, int], tuple[Item, asyncio.Task[None]]] = {}
        self._rest_s = REST_S

    async def run(self) -> None:
        """While the queue or the store is away it rests, each time longer."""
        async with beside("batch-leases", self._prolong):
            while True:
                while len(self._tasks) >= self._prefetch:  # of a connection that was lost
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                try:
                    async with self._queue.work(prefetch=self._prefetch) as batches, aclosing(batches):
                        try:
                            async for deliveries in batches:
                                await self._take(deliveries)
                                self._rest_s = REST_S
                        except asyncio.CancelledError:
                            await self._drain()
                            raise
                except StoreUnavailableError as error:
                    log.warning("the worker of batches rests", seconds=self._rest_s, reason=str(error))
                await asyncio.sleep(self._rest_s)
                self._rest_s = min(REST_AT_MOST_S, 2 * self._rest_s)

    async def _take(self, deliveries: Sequence[Delivery]) -> None:
        """Raises StoreUnavailableError where nothing can be claimed: the tickets are there again then."""
        due = _whole(self._now() + timedelta(seconds=LEASE_S))
        claims: list[tuple[Delivery, Move]] = []
        for delivery in deliveries:
            try:
                claims.append((delivery, claim(delivery.job, due)))
            except ValueError as error:
                await delivery.refused(str(error))
        items, batches = (
            await self._mover.move_all([move for _, move in claims], BatchMode.LIVE),
            BatchesOf(self._store),
        )
        for (delivery, _), item in zip(claims, items, strict=True):
            task = asyncio.create_task(self._work(delivery, item, batches), name="batch-item")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if item is not None:
                self._held[item.organisation, item.batch, item.index] = item, task

    async def _work(self, delivery: Delivery, item: Item | None, batches: BatchesOf) -> None:
        """Without an item: the ticket was used, or its item is no longer to be had."""
        try:
            if item is not None:
                await self._runner.run(item, batches, delivery.job.trace)
        finally:
            if item is not None:
                self._held.pop((item.organisation, item.batch, item.index), None)
            with suppress(StoreUnavailableError):  # the ticket comes again, and is good for nothing
                await delivery.done()

    async def _prolong(self) -> None:
        while True:
            await asyncio.sleep(PROLONGED_EVERY_S)
            held = list(self._held.values())
            due = _whole(self._now() + timedelta(seconds=LEASE_S))
            try:
                moves = [_prolonged(item, due) for item, _ in held]
                standing = await self._mover.move_all(moves, BatchMode.LIVE)
            except StoreUnavailableError as error:
                log.warning("claims of items can't be prolonged", items=len(held), reason=str(error))
                continue
            for (_, task), still in zip(held, standing, strict=True):
                if still is None:
                    task.cancel()

    async def _drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._drain_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _prolonged(item: Item, due: datetime) -> Move:
    running = ItemState.RUNNING
    return Move(item.organisation, item.batch, item.index, (running,), running, item.fence, due=due)


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)


@asynccontextmanager
async def working(worker: ItemWorker) -> AsyncIterator[None]:
    """A worker of batches beside what else this process does."""
    async with beside("batch-worker", worker.run):
        yield
