"""When a batch is likely to end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from persistence.batch_records import Batch, BatchState, Counts
from tests.persistence.batches import batch
from tests.persistence.entries import NOON

from .batch_stage import open_batch_stage
from .scene import ACME

A_MINUTE_LATER = NOON + timedelta(minutes=1)


async def estimated(at: datetime, of: Batch) -> datetime | None:
    async with open_batch_stage() as stage:
        return replace(stage.batches, now=lambda: at).estimated_end(of)


@pytest.mark.parametrize("ended", [{"succeeded": 20}, {"succeeded": 18, "failed": 2}])
async def test_it_goes_on_at_the_pace_until_now(ended: dict[str, int]) -> None:
    """Twenty in a minute: sixty more in three."""
    counts = Counts(waiting=40, queued=10, running=10, **ended)
    assert await estimated(A_MINUTE_LATER, batch(counts=counts)) == A_MINUTE_LATER + timedelta(minutes=3)


async def test_what_has_not_begun_by_the_deadline_has_ended_then() -> None:
    deadline = A_MINUTE_LATER + timedelta(minutes=2)
    found = batch(counts=Counts(waiting=60, succeeded=20), deadline=deadline)
    assert await estimated(A_MINUTE_LATER, found) == deadline


@pytest.mark.parametrize("only_failed", [True, False])
async def test_a_run_anew_goes_at_its_own_pace(only_failed: bool) -> None:
    """Whatever had ended before it."""
    async with open_batch_stage() as stage:
        submitted = await stage.submit(1)
        ended = {"state": BatchState.CANCELLED, "counts": Counts(succeeded=500, failed=80, cancelled=40)}
        stage.store.batches["acme", submitted.id] = replace(submitted, **ended)
        begun = await stage.batches.retry(ACME, submitted.id, only_failed=only_failed)
        stayed, anew = (Counts(succeeded=500, cancelled=40), 80) if only_failed else (Counts(succeeded=500), 120)
        counts = replace(stayed, succeeded=518, failed=2, waiting=anew - 20)
        running = replace(begun, state=BatchState.RUNNING, counts=counts)
        at = begun.started_at + timedelta(minutes=1)
        estimate = replace(stage.batches, now=lambda: at).estimated_end(running)
    assert estimate == at + timedelta(minutes=(anew - 20) / 20)


@pytest.mark.parametrize(
    "untold",
    [
        batch(counts=Counts(waiting=60, running=20)),
        batch(counts=Counts(succeeded=80)),
        batch(counts=Counts(waiting=60, succeeded=20), state=BatchState.CANCELLING),
        batch(counts=Counts(waiting=60, succeeded=20), run=2, ended_before=20),
    ],
    ids=["nothing has ended", "all has", "it is being cancelled", "all that has ended did so in a run before"],
)
async def test_else_nobody_can_tell(untold: Batch) -> None:
    assert await estimated(A_MINUTE_LATER, untold) is None
