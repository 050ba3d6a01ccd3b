"""Durable jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence, Set
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

from ..queue_records import Job, QueueDepth


class Delivery(Protocol):
    """A job in a worker's hands, which ends it in one of four ways. Each raises StoreUnavailableError: then the job
    comes again."""

    @property
    def job(self) -> Job: ...

    async def done(self) -> None: ...

    async def failed(self, reason: str) -> None:
        """It comes again when the delay of its failures is over (RETRY_DELAYS_S); after the last of them it is
        parked."""
        ...

    async def refused(self, reason: str) -> None:
        """It can never be done: it is parked at once."""
        ...

    async def put_back(self) -> None:
        """It comes again, to anybody, and this was no failure of its own."""
        ...


class JobQueue(Protocol):
    """Durable jobs, each given to one worker at a time, and again where that one dies. A job may come twice, so doing
    it twice is doing it once. Every method raises StoreUnavailableError."""

    async def publish(self, jobs: Sequence[Job]) -> None:
        """Returns when all are durable; with StoreUnavailableError some may be."""
        ...

    def work(self, *, prefetch: int) -> AbstractAsyncContextManager[AsyncGenerator[Sequence[Delivery], None]]:
        """Jobs, about the oldest first, each time as many as there are, at most `prefetch` in hand at once. What is in
        hand as it is left is put back. Entering, and the generator as the queue goes away, raise StoreUnavailableError:
        what was in hand then comes again."""
        ...

    async def parked(self, *, limit: int) -> Sequence[Job]:
        """The oldest first."""
        ...

    async def replay(self, job_ids: Collection[str]) -> Set[str]:
        """Give parked jobs to the workers once more, as new, their failures forgotten; which of them there were."""
        ...

    async def drop(self, job_ids: Collection[str]) -> Set[str]:
        """Forget parked jobs; which of them there were."""
        ...

    async def depth(self) -> QueueDepth: ...


class JobFailures(Protocol):
    """How often jobs have failed, for a queue that can't count by itself. Forgotten FAILURES_KEPT_FOR after the last
    failure."""

    async def add(self, name: str, *, known: int, at: datetime) -> int:
        """One failure more, in one step whoever else counts by that name: how many there are now, which is more than
        `known`. `at`: whole milliseconds. Raises StoreUnavailableError."""
        ...
