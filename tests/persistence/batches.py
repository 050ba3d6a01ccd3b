"""Batches and items for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from uuid_utils import uuid7

from persistence.batch_records import Batch, BatchMode, BatchState, Counts, Item, ItemState, Move, Submitter, Text
from persistence.ports import BatchStore
from tests.persistence.audit import audit_event
from tests.persistence.entries import NOON

ENDED_BATCH = f"bat_{'0' * 32}"
SOON = NOON + timedelta(minutes=1)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def batch(**changes: Any) -> Batch:
    values: dict[str, Any] = {
        "id": f"bat_{uuid7().hex}",
        "organisation": "acme",
        "state": BatchState.RUNNING,
        "mode": BatchMode.LIVE,
        "priority": 5,
        "submitter": Submitter("key_1", "key_1", models=("openai/*",), request_id="r-1", trace=TRACEPARENT),
        "digest": "d1",
        "created_at": NOON,
        "started_at": NOON,
        "labels": {"a.b": "$c"},
        "counts": Counts(waiting=3),
    }
    return Batch(**values | changes)


def item(of: Batch, index: int, **changes: Any) -> Item:
    values: dict[str, Any] = {
        "organisation": of.organisation,
        "batch": of.id,
        "index": index,
        "input": Text(f'{{"n":{index}}}'),
        "due": NOON,
    }
    return Item(**values | changes)


def move(of: Batch, index: int, expects: ItemState, to: ItemState, **changes: Any) -> Move:
    return Move(of.organisation, of.id, index, (expects,), to, **changes)


async def keep_ended(store: BatchStore) -> None:
    """One with a failed item; another organisation's audit log has it."""
    made = batch(
        id=ENDED_BATCH, state=BatchState.COMPLETED, counts=Counts(failed=1), ended_at=NOON, result_file="batches/r"
    )
    await store.begin(made)
    await store.open(made, at_most=1, audit=lambda *_: audit_event(organisation="nobody"))
