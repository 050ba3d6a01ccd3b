"""What is queued of an item: its name, and no text."""

from __future__ import annotations

from datetime import datetime

import orjson
from uuid_utils import uuid7

from persistence.batch_records import Item, ItemState, Move
from persistence.queue_records import Job

ITEM_JOB = "batch-item"


def ticket(item: Item, now: datetime, trace: str | None = None) -> Job:
    """For an item that is queued: whoever has it may claim that."""
    body = {"organisation": item.organisation, "batch": item.batch, "index": item.index, "fence": item.fence}
    return Job(str(uuid7()), ITEM_JOB, orjson.dumps(body).decode(), now, trace=trace)


def claim(job: Job, due: datetime) -> Move:
    """What a ticket is good for, once. Raises ValueError for what is none."""
    if job.kind != ITEM_JOB:
        raise ValueError(f"no worker of batches does {job.kind[:50]!r}")
    match orjson.loads(job.body):
        case {"organisation": str(organisation), "batch": str(batch), "index": int(index), "fence": int(fence)}:
            expects = (ItemState.QUEUED,)
            return Move(organisation, batch, index, expects, ItemState.RUNNING, fence, due=due, claims=True)
    raise ValueError("a ticket names an item")
