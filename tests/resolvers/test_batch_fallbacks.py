"""Items whose model can't answer go to their fallbacks, as any completion does."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from persistence.batch_records import Counts
from providers.errors import ProviderRateLimitedError
from resolvers.batches.asked import BatchAsked
from resolvers.types import Target

from .batch_stage import BatchStage, answering, inputs, open_batch_stage
from .scene import ACME, unavailable


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


@pytest.mark.parametrize(
    "error", [unavailable(), ProviderRateLimitedError("slow down", provider="alpha", status=429, retry_after=600.0)]
)
async def test_an_item_has_an_entry_for_each_attempt_and_the_fallbacks_answer(
    stage: BatchStage, error: Exception
) -> None:
    """A limit of the first model holds up none that has another."""
    stage.alpha.will(*[[error]] * 100)
    answering(stage.scene.beta, 5)
    asked = inputs(5, fallbacks=(Target("beta", "b-1"),))
    batch = await stage.batches.submit(ACME, BatchAsked(), asked)
    began = stage.batches.now()
    async with stage.running(prefetch=1):
        ended = await stage.ended(batch)
    assert (ended.counts, (stage.batches.now() - began).total_seconds() < 300) == (Counts(succeeded=5), True)
    entries = stage.scene.store.entries
    assert len(entries) == len(stage.alpha.calls) + len(stage.scene.beta.calls)
    last = {entry.completion_id: entry.provider for entry in entries}
    assert last == {item.completion_id: "beta" for item in stage.items(batch)}
