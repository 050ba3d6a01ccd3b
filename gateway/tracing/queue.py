"""Jobs go into the queue with the trace that they are published in."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence, Set
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from persistence.ports import Delivery, JobQueue
from persistence.queue_records import Job, QueueDepth

from ..stores import Stores
from .port import Tracing


class TracedQueue:
    """Implements `ports.JobQueue`, by another one."""

    def __init__(self, queue: JobQueue, tracing: Tracing) -> None:
        self._queue = queue
        self._tracing = tracing

    async def publish(self, jobs: Sequence[Job]) -> None:
        trace = self._tracing.current()
        await self._queue.publish(jobs if trace is None else [replace(job, trace=job.trace or trace) for job in jobs])

    def work(self, *, prefetch: int) -> AbstractAsyncContextManager[AsyncGenerator[Sequence[Delivery], None]]:
        return self._queue.work(prefetch=prefetch)

    async def parked(self, *, limit: int) -> Sequence[Job]:
        return await self._queue.parked(limit=limit)

    async def replay(self, job_ids: Collection[str]) -> Set[str]:
        return await self._queue.replay(job_ids)

    async def drop(self, job_ids: Collection[str]) -> Set[str]:
        return await self._queue.drop(job_ids)

    async def depth(self) -> QueueDepth:
        return await self._queue.depth()


def traced_stores(stores: Stores, tracing: Tracing) -> Stores:
    return replace(stores, queue=TracedQueue(stores.queue, tracing))
