"""What an observer is told of batches: each item's end once, and how batches stand until there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from persistence.batch_records import Batch, BatchMode, ItemState
from persistence.records import LedgerEntry
from providers.errors import ProviderInvalidRequestError
from resolvers.observing import Unobserved

from .batch_stage import BatchStage, answering, open_batch_stage, until
from .scene import ACME, Hold, texts

LIVE = BatchMode.LIVE


class Listener(Unobserved):
    def __init__(self) -> None:
        self.ends: Counter[tuple[BatchMode, ItemState]] = Counter()
        self.collected_ids: list[str] = []
        self.standing: list[tuple[int, int]] = []
        """Batches and their open items, at each look."""

    def collected(self, entry: LedgerEntry, batch: Batch) -> None:
        self.collected_ids.append(entry.completion_id)

    def item_ended(self, mode: BatchMode, outcome: ItemState) -> None:
        self.ends[mode, outcome] += 1

    def batches_stand(self, batches: Sequence[Batch]) -> None:
        self.standing.append((len(batches), sum(batch.counts.open for batch in batches)))


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


@pytest.fixture
def listener(stage: BatchStage) -> Listener:
    listener = Listener()
    stage.scene.services = replace(stage.scene.services, observer=listener)
    return listener


async def test_each_item_s_end_is_told_once_and_batches_until_they_have_ended(
    stage: BatchStage, listener: Listener
) -> None:
    stage.alpha.will([ProviderInvalidRequestError("no", provider="alpha")])
    answering(stage.alpha)
    async with stage.running(prefetch=1):
        await stage.ended(await stage.submit(5))
        await until(lambda: listener.standing[-1] == (0, 0))
    assert listener.ends == {(LIVE, ItemState.SUCCEEDED): 4, (LIVE, ItemState.FAILED): 1}
    assert (1, 5) in listener.standing


async def test_what_is_cancelled_before_its_turn_has_ended_too(stage: BatchStage, listener: Listener) -> None:
    batch = await stage.submit(3)
    await stage.batches.cancel(ACME, batch.id)
    async with stage.dispatcher():
        await stage.ended(batch)
    assert listener.ends == {(LIVE, ItemState.CANCELLED): 3}


async def test_who_dispatches_no_more_tells_of_none(stage: BatchStage, listener: Listener) -> None:
    stage.alpha.will([Hold(), *texts("a")])
    await stage.submit(1)
    async with stage.running():
        await until(lambda: listener.standing[-1:] == [(1, 1)])
        async with stage.dispatcher():
            pass
        stage.store.down = True
        await until(lambda: listener.standing[-1] == (0, 0))
        stage.store.down = False
        await until(lambda: listener.standing[-1] == (1, 1))
    assert listener.standing[-1] == (0, 0)
