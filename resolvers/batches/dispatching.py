"""The dispatcher, of which one leads over all processes: it keeps a short queue filled, fair by organisation, and
brings batches to their ends."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

import structlog

from persistence.batch_records import Batch, BatchMode, BatchState, Item, ItemState, Move
from persistence.ports import BatchStore, JobQueue, StoreUnavailableError

from ..beside import beside
from ..errors import ServiceUnavailableError
from ..observing import UNOBSERVED, Observer
from ..tracing import UNTRACED, Tracer
from .finishing import Finisher
from .forgetting import Forgetter
from .moving import Mover
from .shares import Name, name, shares
from .sweeping import REQUEUE_S, Sweeper
from .tickets import ITEM_JOB, ticket

LEADER = "batches"
LEAD_S = 10.0
BUSY_S, IDLE_S, FOLLOWING_S = 0.1, 1.0, 2.0
"""Between two looks: while there are items to queue, while there are none, and while another process leads."""
LAPSE_S = 2.0
QUEUED_AT_LEAST, QUEUED_AT_MOST = 20, 200
"""Tickets in the queue at once, of all batches: who comes next waits until those before him are used."""
AWAY_S = 1.0
PAGE = 500
BESIDE_AT_MOST = 20
UNCOUNTED_FOR = timedelta(seconds=20)
"""Longer than a move takes."""
FORGET_S, FORGET_UPLOADS_S = 600.0, 86_400.0

log = structlog.get_logger("batches")


class VendorSide(Protocol):
    """What is done for batches that the vendors work on."""

    async def advance(self, batch: Batch) -> None:
        """Gives the vendor what waits, asks after what it has, and keeps what it answers. Raises StoreUnavailableError
        and ServiceUnavailableError."""
        ...

    async def close(self, batch: Batch) -> None:
        """All its items have ended: nothing is held for it any more, whoever died before he had said so. Raises as
        `advance`."""
        ...


class Dispatcher:
    """`bell`: rung where there is something new to do. `now` is aware UTC, `clock` monotonic, in seconds. `vendors`:
    None where no batch can be given to one. `observer` is told at each look how the batches stand."""

    def __init__(
        self,
        store: BatchStore,
        queue: JobQueue,
        mover: Mover,
        finisher: Finisher,
        forgetter: Forgetter,
        vendors: VendorSide | None,
        bell: asyncio.Event,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        observer: Observer = UNOBSERVED,
        tracer: Tracer = UNTRACED,
    ) -> None:
        self._store = store
        self._queue = queue
        self._mover = mover
        self._finisher = finisher
        self._forgetter = forgetter
        self._vendors = vendors
        self._sweeper = Sweeper(store, mover, queue, now)
        self._now = now
        self._clock = clock
        self._observer = observer
        self._tracer = tracer
        self._holder = uuid4().hex
        self._leads_until = 0.0
        self._look_for_lapsed_at = 0.0
        self._forget_at = 0.0
        self._forget_uploads_at = 0.0
        self._forgetting: asyncio.Task[None] | None = None
        self._beside: dict[Name, asyncio.Task[None]] = {}
        self._filled = self._most = 0
        self._last_beside: Name = ("", "")
        self._bell = bell

    async def run(self) -> None:
        """Endless. Cancelled, it leads no more."""
        try:
            while True:
                await self._wait(await self._look())
        finally:
            await self._stop()

    async def _look(self) -> float:
        """How long to wait until the next."""
        active: Sequence[Batch] = ()
        try:
            if not await self._lead():
                return FOLLOWING_S
            active = await self._active()
            dispatched = await self._advance(active)
        except StoreUnavailableError as error:
            log.warning("batches rest", reason=str(error))
            return AWAY_S
        finally:
            self._observer.batches_stand(active)
        return BUSY_S if dispatched or any(batch.counts.queued for batch in active) else IDLE_S

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        self._bell.clear()

    async def _lead(self) -> bool:
        clock = self._clock()
        if clock < self._leads_until - LEAD_S / 2:
            return True
        now = _whole(self._now())
        if await self._store.lead(LEADER, self._holder, now=now, until=now + timedelta(seconds=LEAD_S)):
            self._leads_until = clock + LEAD_S
            return True
        await self._end_tasks()
        return False

    async def _active(self) -> Sequence[Batch]:
        found: list[Batch] = []
        while True:
            after = name(found[-1]) if found else None
            page = await self._store.active(limit=PAGE, after=after)
            found += page
            if len(page) < PAGE:
                return found

    async def _advance(self, active: Sequence[Batch]) -> int:
        """How many items were queued."""
        if self._clock() >= self._look_for_lapsed_at:
            self._look_for_lapsed_at = self._clock() + LAPSE_S
            before = _whole(self._now() - UNCOUNTED_FOR)
            tickets = sum(batch.counts.queued for batch in active)
            for batch in active:
                await self._store.mend(*name(batch), before=before)
                if batch.mode is BatchMode.LIVE and batch.counts.queued + batch.counts.running:
                    await self._sweeper.lapsed(batch, tickets=tickets)
        behind = bisect_right(active, self._last_beside, key=name)
        for batch in (*active[behind:], *active[:behind]):  # in turn: there may be more of them than go on at once
            self._apart(batch)
        live = [each for each in active if each.mode is BatchMode.LIVE and each.state is BatchState.RUNNING]
        self._forget()
        return await self._fill(live)

    def _apart(self, batch: Batch) -> None:
        """What takes a while goes on in a task of its own, one for a batch."""
        if name(batch) in self._beside or len(self._beside) >= BESIDE_AT_MOST:
            return
        late = batch.deadline is not None and batch.deadline <= self._now()
        work: Coroutine[Any, Any, object] | None = None
        if batch.state in (BatchState.RETRYING, BatchState.RETRYING_ALL):
            work = self._sweeper.retry(batch)
        elif not batch.counts.open:
            work = self._finish(batch)
        elif batch.state is BatchState.CANCELLING and batch.mode is BatchMode.LIVE:
            work = self._sweeper.cancel(batch)
        elif batch.mode is BatchMode.PROVIDER and self._vendors is not None:
            work = self._by_vendor(batch, late=late)
        elif late and batch.counts.waiting + batch.counts.queued:
            work = self._sweeper.expire(batch)
        if work is not None:
            task = asyncio.create_task(self._told(batch, work), name="batch-beside")
            self._beside[name(batch)] = task
            self._last_beside = name(batch)

    async def _finish(self, batch: Batch) -> None:
        if batch.mode is BatchMode.PROVIDER and self._vendors is not None:
            await self._vendors.close(batch)
        await self._finisher.finish(batch)

    async def _by_vendor(self, batch: Batch, *, late: bool) -> None:
        assert self._vendors is not None  # noqa: S101  # who calls this has looked
        if batch.state is BatchState.CANCELLING:
            await self._sweeper.cancel(batch)
        elif late:
            await self._sweeper.expire(batch)
        await self._vendors.advance(batch)

    async def _told(self, batch: Batch, work: Awaitable[object]) -> None:
        try:
            await work
        except (StoreUnavailableError, ServiceUnavailableError) as error:
            log.warning("a batch rests", batch=batch.id, reason=str(error))
            await asyncio.sleep(AWAY_S)
        except Exception:  # whatever it is, the other batches go on, and this one is tried again
            log.exception("a batch broke", batch=batch.id)
            await asyncio.sleep(LEAD_S)
        finally:
            self._beside.pop(name(batch), None)

    async def _fill(self, batches: Sequence[Batch]) -> int:
        queued_before = sum(batch.counts.queued for batch in batches)
        room = self._room(queued_before)
        given: dict[Name, int] = {}
        exhausted: set[Name] = set()
        named = {name(batch): batch for batch in batches}
        while room > 0 and (wanted := shares(batches, given, room, exhausted)):
            for (organisation, batch_id), count in sorted(wanted.items(), key=lambda each: each[1]):  # the few first
                states = (ItemState.WAITING,)
                found = await self._store.due(organisation, batch_id, states=states, now=self._now(), limit=count)
                if len(found) < count:
                    exhausted.add((organisation, batch_id))
                queued = await self._enqueue(named[organisation, batch_id], found) if found else 0
                given[organisation, batch_id] = given.get((organisation, batch_id), 0) + queued
                room -= queued
                if queued < len(found):  # somebody else dispatches too: the next look will tell
                    exhausted.add((organisation, batch_id))
        filled = sum(given.values())
        self._filled = queued_before + filled
        return filled

    def _room(self, queued: int) -> int:
        """For twice as many tickets as were used between two looks: few where items take their time, and where they do
        not, no worker is left without."""
        used = self._filled - queued
        self._most = min(max(2 * used, self._most * 9 // 10, QUEUED_AT_LEAST), QUEUED_AT_MOST)
        return self._most - queued

    async def _enqueue(self, batch: Batch, items: Sequence[Item]) -> int:
        now = _whole(self._now())
        due = now + timedelta(seconds=REQUEUE_S)
        moves = [_moved(item, ItemState.WAITING, ItemState.QUEUED, due) for item in items]
        queued = [item for item in await self._mover.move_all(moves, BatchMode.LIVE) if item is not None]
        if not queued:
            return 0
        try:
            with self._tracer.sending(ITEM_JOB, batch, len(queued)) as trace:
                await self._queue.publish([ticket(item, now, trace) for item in queued])
        except StoreUnavailableError:
            back = [_moved(item, ItemState.QUEUED, ItemState.WAITING, now) for item in queued]
            # a ticket that is there all the same finds nothing to claim
            await self._mover.move_all(back, BatchMode.LIVE)
            raise
        return len(queued)

    def _forget(self) -> None:
        """Beside the rest: it takes its time."""
        if self._clock() >= self._forget_at and (self._forgetting is None or self._forgetting.done()):
            self._forget_at = self._clock() + FORGET_S
            self._forgetting = asyncio.create_task(self._forget_old(), name="batch-forgetting")

    async def _forget_old(self) -> None:
        try:
            await self._forgetter.forget()
            if self._clock() >= self._forget_uploads_at:
                await self._forgetter.forget_uploads()
                self._forget_uploads_at = self._clock() + FORGET_UPLOADS_S
        except StoreUnavailableError as error:
            log.warning("old batches are kept for now", reason=str(error))
        except Exception:  # whatever it is, batches go on, and it is tried again
            log.exception("old batches can't be forgotten")

    async def _stop(self) -> None:
        self._observer.batches_stand(())
        await self._end_tasks()
        if self._leads_until:
            with suppress(StoreUnavailableError):  # then the others wait until its time is over
                await self._store.resign(LEADER, self._holder)
            self._leads_until = 0.0

    async def _end_tasks(self) -> None:
        tasks = [*self._beside.values(), *([] if self._forgetting is None else [self._forgetting])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@asynccontextmanager
async def dispatching(dispatcher: Dispatcher) -> AsyncIterator[None]:
    async with beside("batch-dispatcher", dispatcher.run):
        yield


def _moved(item: Item, before: ItemState, to: ItemState, due: datetime) -> Move:
    return Move(item.organisation, item.batch, item.index, (before,), to, item.fence, due=due)


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
