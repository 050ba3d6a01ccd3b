"""Budgets of a batch's items: an item that has no room waits and says why, and one that never has any fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from decimal import Decimal

import pytest

from persistence.batch_records import Batch, Counts, ItemState
from resolvers.batches.asked import BatchAsked
from resolvers.errors import BudgetExceededError

from .batch_stage import BatchStage, answering, inputs, open_batch_stage
from .scene import ACME, Scene
from .test_limits import MOST, limit, priced

COST = 27
"""Dollars that an item comes to, and a call beside it; each may come to MOST."""
ROOM_FOR = 8
BUDGET = Decimal((ROOM_FOR - 1) * COST + MOST)


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        priced(stage.scene)
        answering(stage.alpha)
        yield stage


async def submitted(stage: BatchStage, count: int) -> Batch:
    return await stage.batches.submit(ACME, BatchAsked(), inputs(count, max_tokens=4))


def spent(scene: Scene) -> Decimal:
    return sum((entry.cost or Decimal(0) for entry in scene.store.entries), Decimal(0))


async def calling(scene: Scene, refused: list[BudgetExceededError]) -> None:
    """Again and again, until it is refused for good: nothing else runs, and there is no room."""
    while len(refused) < 20:
        try:
            await scene.complete(max_tokens=4)
        except BudgetExceededError as error:
            refused.append(error)
        await asyncio.sleep(1)


async def test_items_beside_calls_never_exceed_a_budget_and_wait_for_another(stage: BatchStage) -> None:
    scene, refused = stage.scene, list[BudgetExceededError]()
    limit(scene, usd_per_day=BUDGET)
    batch = await submitted(stage, 12)
    async with stage.running(prefetch=12):
        await calling(scene, refused)
        assert spent(scene) == ROOM_FOR * COST <= BUDGET
        waiting = [item for item in stage.items(batch) if item.state is ItemState.WAITING]
        assert waiting
        assert {item.error.code for item in waiting if item.error} == {"BUDGET_EXCEEDED"}
        assert f"at most {BUDGET} USD a day (UTC), of which {ROOM_FOR * COST} are spent" in str(waiting[0].error)
        limit(scene, usd_per_day=BUDGET + 12 * COST)
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=12)
    assert {item.failures for item in stage.items(batch)} == {0}, "to wait is no failure"
    assert ended.cost == 12 * COST


async def test_an_item_that_never_fits_fails_and_says_so(stage: BatchStage) -> None:
    limit(stage.scene, usd_per_day=Decimal(MOST - 1))
    batch = await submitted(stage, 3)
    async with stage.running():
        ended = await stage.ended(batch)
    assert ended.counts == Counts(failed=3)
    for item in stage.items(batch):
        assert item.error is not None
        assert item.error.code == "BUDGET_EXCEEDED"
        assert item.error.message.endswith(f"this call alone could come to {MOST}, so it never fits")
    assert stage.alpha.calls == []
    with suppress(BudgetExceededError):
        await stage.scene.complete(max_tokens=4)
    assert spent(stage.scene) == 0
