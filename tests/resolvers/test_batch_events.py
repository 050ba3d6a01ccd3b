"""The end of a batch, told by webhooks; and batches as they are watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

import pytest

from persistence.batch_records import BatchState, Counts
from resolvers.batches import progress
from resolvers.batches.events import WebhookEvents
from resolvers.errors import NotFoundError, RateLimitedError, ServiceUnavailableError, UnauthenticatedError
from resolvers.webhook_events import EventType
from resolvers.webhooks import Webhooks
from tests.persistence.batches import SOON, batch

from .batch_stage import BatchStage, answering, open_batch_stage
from .scene import ACME, GLOBEX

LASTING = replace(ACME, expires_at=4e9)


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


class Noted:
    def __init__(self) -> None:
        self.events: list[tuple[str, EventType, Mapping[str, Any], str]] = []
        self.only: list[str | None] = []

    async def emit(
        self,
        organisation: str,
        kind: EventType,
        data: Mapping[str, Any],
        *,
        id: str,  # noqa: A002  # as its like
        only: str | None,
    ) -> bool:
        self.only.append(only)
        self.events.append((organisation, kind, data, id))
        return True


async def test_the_end_is_told_under_a_name_of_its_own_for_each_run() -> None:
    noted = Noted()
    made = batch(state=BatchState.COMPLETED, counts=Counts(succeeded=2, failed=1), ended_at=SOON, labels={"a": "b"})
    events = WebhookEvents(cast("Webhooks", noted))
    for run in (1, 1, 2):
        await events.ended(replace(made, run=run))
    assert [each[3] for each in noted.events] == [f"{made.id}/1", f"{made.id}/1", f"{made.id}/2"]
    await events.ended(replace(made, webhook="whk_1"))
    assert noted.only == [None, None, None, "whk_1"]
    organisation, kind, data, _ = noted.events[0]
    assert (organisation, kind) == ("acme", EventType.BATCH_COMPLETED)
    counts = {"waiting": 0, "queued": 0, "running": 0, "succeeded": 2, "failed": 1, "cancelled": 0, "total": 3}
    assert data == {
        "id": made.id,
        "state": "COMPLETED",
        "run": 1,
        "counts": counts,
        "cost": "0",
        "labels": {"a": "b"},
        "createdAt": made.created_at.isoformat(),
        "endedAt": SOON.isoformat(),
    }


async def test_a_batch_is_watched_until_it_has_ended(stage: BatchStage) -> None:
    answering(stage.alpha)
    made = await stage.submit(30, concurrency=1)
    seen: list[list[int]] = [[], []]

    async def watch(place: int) -> None:
        async with aclosing(stage.batches.progress.of(LASTING, made.id)) as states:
            seen[place] = [state.counts.succeeded async for state in states]

    watching = asyncio.gather(watch(0), watch(1))
    async with stage.running():
        await watching
    for each in seen:
        assert each[-1] == 30
        assert each == sorted(each)
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "batch-progress"]) == 0


async def test_who_may_not_watch_is_told_so(stage: BatchStage, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = await stage.submit(1), await stage.submit(1)
    with pytest.raises(NotFoundError):
        await anext(stage.batches.progress.of(replace(GLOBEX, expires_at=4e9), made.id))
    with pytest.raises(UnauthenticatedError):
        await anext(stage.batches.progress.of(ACME, made.id))
    monkeypatch.setattr(progress, "MAX_WATCHED_OF_ONE", 1)
    async with aclosing(stage.batches.progress.of(LASTING, made.id)) as first:
        assert (await anext(first)).id == made.id
        with pytest.raises(RateLimitedError):
            await anext(stage.batches.progress.of(LASTING, other.id))
        await stage.batches.progress.close()
        with pytest.raises(ServiceUnavailableError):
            await anext(first)


async def test_while_the_store_is_away_a_watcher_waits(stage: BatchStage) -> None:
    made = await stage.submit(1)
    async with aclosing(stage.batches.progress.of(LASTING, made.id)) as states:
        assert (await anext(states)).counts.waiting == 1
        stage.store.down = True
        waiting = asyncio.ensure_future(anext(states))
        await asyncio.sleep(30)
        assert not waiting.done()
        stage.store.down = False
        assert (await waiting).counts.waiting == 1, "a sign of life"
