"""What is queued, as plain dataclasses. Times are aware UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

RETRY_DELAYS_S = (1, 5, 30, 120, 600)
"""How long a job rests after its first failure, its second, and so on; after one more it is parked."""
MAX_REASON = 500
FAILURES_KEPT_FOR = timedelta(days=7)
"""Longer than any rest; what waits for longer, its worker being away, is known by the job itself."""


@dataclass(frozen=True, slots=True)
class Job:
    """Work for whichever worker is free. `id` sorts by time; `body` is JSON, with ids and counts: no text of anybody's,
    no secret. `failures`: how often a worker has said that it failed, which is not how often it was begun: that a
    worker died is not the job's fault. `reason`: what was said last, at most MAX_REASON characters.
    `trace`: what published it, as a W3C `traceparent`; None where that is not known, or not any more."""

    id: str
    kind: str
    body: str
    created_at: datetime
    failures: int = 0
    reason: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How many jobs there are: in no worker's hands, resting after a failure, and parked. `oldest`: when the oldest of
    the ready ones was made; None where there is none, or the queue can't say."""

    ready: int
    resting: int
    parked: int
    oldest: datetime | None = None
