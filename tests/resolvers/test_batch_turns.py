"""Whose items come next where those of others take their time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from resolvers.batches.dispatching import BUSY_S, QUEUED_AT_LEAST

from .batch_stage import BatchStage, answering, open_batch_stage, until
from .scene import GLOBEX, Hold, texts

SECONDS = 10.0
AT_ONCE = 10


class Slow(Hold):
    """A vendor that takes its time."""

    async def wait(self) -> None:
        await asyncio.sleep(SECONDS)


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


async def test_items_that_take_their_time_hold_up_nobody_elses(stage: BatchStage) -> None:
    stage.alpha.will(*[[Slow(), *texts("a")] for _ in range(400)])
    large = await stage.submit(300)
    async with stage.running(prefetch=AT_ONCE):
        await until(lambda: len(stage.alpha.calls) >= 10 * AT_ONCE)
        assert stage.now(large).counts.queued <= QUEUED_AT_LEAST
        began = asyncio.get_running_loop().time()
        await stage.ended(await stage.submit(10, GLOBEX))
    rounds = (asyncio.get_running_loop().time() - began) / SECONDS
    assert rounds <= QUEUED_AT_LEAST / AT_ONCE + 2.5, "what was queued before, what runs, and their own"


async def test_those_that_do_not_are_queued_as_fast_as_they_are_used(stage: BatchStage) -> None:
    answering(stage.alpha, 1_000)
    batch, began = await stage.submit(1_000), asyncio.get_running_loop().time()
    async with stage.running(prefetch=100):
        await stage.ended(batch)
    looks = (asyncio.get_running_loop().time() - began) / BUSY_S
    assert looks < 1_000 / QUEUED_AT_LEAST / 2
