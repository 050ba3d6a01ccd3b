"""Takes jobs from the queue and has them done: a job is done, comes again later, or is parked, and is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import groupby

import structlog

from persistence.ports import Delivery, JobQueue, StoreUnavailableError
from persistence.queue_records import Job

from .beside import beside
from .observed_jobs import observed_batch
from .observing import UNOBSERVED, Observer

PREFETCH = 50
REST_S = 1.0
REST_AT_MOST_S = 30.0
DRAIN_S = 20.0
"""What is in hand at the end may take as long; who stops a process grants it more than that."""

Handler = Callable[[Sequence[Job]], Awaitable[None]]
"""Does all jobs of a kind that came together, or none: so that doing one again is no harm. Raises
StoreUnavailableError where what it needs is away, which is no fault of the jobs; ValueError for what can never be done;
whatever else it raises is a failure, and may be better next time. After an error, several are tried one by one."""

log = structlog.get_logger("worker")


class Worker:
    """Runs until its task is cancelled; then ends what is in hand, within DRAIN_S. The rest comes again."""

    def __init__(
        self, queue: JobQueue, handlers: Mapping[str, Handler], *, prefetch: int, observer: Observer = UNOBSERVED
    ) -> None:
        self._queue = queue
        self._observer = observer
        self._handlers = handlers
        self._prefetch = prefetch
        self._rest_s = REST_S

    async def run(self) -> None:
        """While the queue, or what a job needs, is away it rests, each time longer."""
        while True:
            trouble = "the jobs' own"
            try:
                async with self._queue.work(prefetch=self._prefetch) as batches, aclosing(batches):
                    async for batch in batches:
                        if not await self._to_its_end(observed_batch(batch, self._observer)):
                            break
                        self._rest_s = REST_S
            except StoreUnavailableError as error:
                trouble = str(error)
            log.warning("the worker rests", seconds=self._rest_s, reason=trouble)
            await asyncio.sleep(self._rest_s)
            self._rest_s = min(REST_AT_MOST_S, 2 * self._rest_s)

    async def _to_its_end(self, batch: Sequence[Delivery]) -> bool:
        doing = asyncio.create_task(self._do_all(batch), name="worker-batch")
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait([doing], timeout=DRAIN_S)
            doing.cancel()
            await asyncio.wait([doing])
            raise

    async def _do_all(self, batch: Sequence[Delivery]) -> bool:
        """False where something is away that they need. Raises StoreUnavailableError where the queue is."""
        goes_on = True
        for kind, same in groupby(sorted(batch, key=_kind), key=_kind):
            goes_on &= await self._do(kind, list(same))
        return goes_on

    async def _do(self, kind: str, deliveries: Sequence[Delivery]) -> bool:
        handler = self._handlers.get(kind)
        if handler is None:
            await _each(delivery.refused(f"no worker of this version does {kind[:50]!r}") for delivery in deliveries)
            return True
        try:
            await handler([delivery.job for delivery in deliveries])
        except StoreUnavailableError as error:
            return await self._without(handler, kind, deliveries, error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the job is not to be lost, nor hold up others
            return await self._apart(kind, deliveries, error)
        await _each(delivery.done() for delivery in deliveries)
        return True

    async def _without(
        self, handler: Handler, kind: str, deliveries: Sequence[Delivery], error: StoreUnavailableError
    ) -> bool:
        """What they need is away; unless one of them alone can be done: then it is others that are at fault, and would
        hold up the rest for ever."""
        for tried in (deliveries[0], deliveries[-1]) if len(deliveries) > 1 else ():
            if await _succeeds(handler, tried.job):
                await tried.done()
                return await self._those_that_can_be(handler, kind, [each for each in deliveries if each is not tried])
        log.warning("jobs wait for what they need", kind=kind, jobs=len(deliveries), reason=str(error))
        await _each(delivery.put_back() for delivery in deliveries)
        return False

    async def _those_that_can_be(self, handler: Handler, kind: str, deliveries: Sequence[Delivery]) -> bool:
        for delivery in deliveries:
            try:
                await handler([delivery.job])
            except StoreUnavailableError as error:
                log.exception("a job finds what it needs away, which others don't", kind=kind, job=delivery.job.id)
                await delivery.failed(str(error))
            except Exception as error:  # noqa: BLE001  # as in `_do`
                await self._apart(kind, [delivery], error)
            else:
                await delivery.done()
        return True

    async def _apart(self, kind: str, deliveries: Sequence[Delivery], error: Exception) -> bool:
        if len(deliveries) > 1:
            outcomes = [await self._do(kind, [delivery]) for delivery in deliveries]
            return all(outcomes)
        (delivery,) = deliveries
        job = delivery.job
        log.error("a job failed", kind=kind, job=job.id, failures_before=job.failures, reason=str(error))
        if isinstance(error, ValueError):
            await delivery.refused(str(error))
        else:
            await delivery.failed(f"{type(error).__name__}: {error}")
        return True


@asynccontextmanager
async def working(
    queue: JobQueue, handlers: Mapping[str, Handler], *, prefetch: int = PREFETCH, observer: Observer = UNOBSERVED
) -> AsyncIterator[None]:
    """A worker beside what else this process does."""
    async with beside("worker", Worker(queue, handlers, prefetch=prefetch, observer=observer).run):
        yield


async def _succeeds(handler: Handler, job: Job) -> bool:
    try:
        await handler([job])
    except Exception:  # noqa: BLE001  # what it is will be seen when it is tried once more
        return False
    return True


def _kind(delivery: Delivery) -> str:
    return delivery.job.kind


async def _each(ends: Iterable[Awaitable[None]]) -> None:
    """All of them, also where one fails: each job that could be ended is."""
    results = await asyncio.gather(*ends, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
