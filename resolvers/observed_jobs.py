"""Jobs in a worker's hands, and the observer that is told what becomes of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from persistence.ports import Delivery
from persistence.queue_records import Job

from .observing import JobOutcome, Observer


class ObservedDelivery:
    """A delivery that tells of its end. Implements `ports.Delivery`."""

    def __init__(self, delivery: Delivery, observer: Observer) -> None:
        self._delivery = delivery
        self._observer = observer
        self._taken_at = time.monotonic()

    @property
    def job(self) -> Job:
        return self._delivery.job

    async def done(self) -> None:
        await self._delivery.done()
        self._tell(JobOutcome.DONE)

    async def failed(self, reason: str) -> None:
        await self._delivery.failed(reason)
        self._tell(JobOutcome.FAILED)

    async def refused(self, reason: str) -> None:
        await self._delivery.refused(reason)
        self._tell(JobOutcome.PARKED)

    async def put_back(self) -> None:
        await self._delivery.put_back()
        self._tell(JobOutcome.PUT_BACK)

    def _tell(self, outcome: JobOutcome) -> None:
        seconds = time.monotonic() - self._taken_at
        self._observer.worked(self.job.kind, outcome, seconds, _age_s(self.job))


def observed_batch(batch: Sequence[Delivery], observer: Observer) -> Sequence[Delivery]:
    """The same deliveries, each telling of its end; that they were taken is told at once."""
    oldest = max(batch, key=lambda delivery: _age_s(delivery.job))
    observer.took(oldest.job.kind, _age_s(oldest.job))
    return [ObservedDelivery(delivery, observer) for delivery in batch]


def _age_s(job: Job) -> float:
    """By the clocks of two machines, which may differ a little."""
    return max(0.0, (datetime.now(UTC) - job.created_at).total_seconds())
