"""Batches of which something is lost, or not heard: the rest goes on, and all of it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from persistence.batch_records import Batch, BatchMode, BatchState, Counts, Item, ItemState, Move, Text
from providers.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderUnavailableError,
)
from resolvers.batches import vendor_runs
from resolvers.batches.asked import BatchAsked
from resolvers.batches.vendor_search import SENDING
from resolvers.types import Target

from .batch_stage import BatchStage, answering, inputs, open_batch_stage, until
from .fake_batches import FakeBatches, with_vendor
from .scene import ACME

LOST_AFTER = timedelta(hours=1)
"""Instead of days."""
LOST = Text(file="that is not there")


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


@pytest.fixture
async def vendor(stage: BatchStage) -> FakeBatches:
    return await with_vendor(stage)


async def given_to_vendor(stage: BatchStage) -> Batch:
    asked = inputs(3, target=Target("openai", "gpt-4o-mini"))
    return await stage.batches.submit(ACME, BatchAsked(mode=BatchMode.PROVIDER), asked)


def change(stage: BatchStage, batch: Batch, index: int, **values: Any) -> None:
    kept = stage.store.kept[batch.organisation, batch.id]
    kept[index] = replace(kept[index], **values)


def lines(stage: BatchStage, batch: Batch) -> list[Any]:
    content = stage.objects.files[batch.organisation, stage.now(batch).result_file or ""]
    return [orjson.loads(line) for line in content.splitlines()]


async def test_an_item_that_can_not_be_read_is_not_sent_and_the_others_are(
    stage: BatchStage, vendor: FakeBatches
) -> None:
    batch = await given_to_vendor(stage)
    change(stage, batch, 1, input=LOST)
    async with stage.dispatcher(vendors=True):
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=2, failed=1)
    broken = stage.items(batch)[1]
    assert (broken.error and broken.error.code, broken.failures) == ("INTERNAL", 3)
    assert [len(names) for _, names in vendor.sent] == [2]


async def test_what_a_vendor_answered_is_booked_though_nobody_knows_what_was_asked(
    stage: BatchStage, vendor: FakeBatches
) -> None:
    vendor.working = True
    batch = await given_to_vendor(stage)
    async with stage.dispatcher(vendors=True):
        await until(lambda: stage.states(batch) == ["running"] * 3)
        change(stage, batch, 1, input=LOST)
        vendor.working = False
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=3)
    booked = {entry.completion_id: entry for entry in stage.scene.store.entries}
    assert list(booked) == [item.completion_id for item in stage.items(batch)]
    assert all((each.output_tokens, each.labels["batch"]) == (2, batch.id) for each in booked.values())


async def test_a_batch_ends_though_an_answer_is_lost(stage: BatchStage) -> None:
    answering(stage.alpha)
    batch = await stage.submit(2)
    async with stage.dispatcher():
        await until(lambda: len(stage.queue.jobs) == 2)
    async with stage.worker():
        await until(lambda: not stage.now(batch).counts.open)
    change(stage, batch, 1, result=LOST)
    async with stage.dispatcher():
        await stage.ended(batch)
    told = [(each["completion"] is None, each["error"] and each["error"]["code"]) for each in lines(stage, batch)]
    assert told == [(False, None), (True, "INTERNAL")]


async def test_a_vendor_that_does_not_hear_that_it_is_to_stop_is_told_again(
    stage: BatchStage, vendor: FakeBatches
) -> None:
    vendor.working = True
    vendor.deaf.append(ProviderUnavailableError("busy", provider="openai", status=503))
    batch = await given_to_vendor(stage)
    async with stage.dispatcher(vendors=True):
        await until(lambda: stage.states(batch) == ["running"] * 3)
        await stage.batches.cancel(ACME, batch.id)
        ended = await stage.ended(batch)
    assert (ended.state, ended.counts) == (BatchState.CANCELLED, Counts(cancelled=3))
    assert vendor.deaf == []


async def test_who_can_not_be_told_to_stop_is_asked_less_and_less(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.working = True
    vendor.deaf += [ProviderUnavailableError("busy", provider="openai", status=503)] * 100
    batch = await given_to_vendor(stage)
    async with stage.dispatcher(vendors=True):
        await until(lambda: stage.states(batch) == ["running"] * 3)
        await stage.batches.cancel(ACME, batch.id)
        await asyncio.sleep(600)
        assert 5 < 100 - len(vendor.deaf) < 15
        vendor.deaf.clear()
        await stage.ended(batch)


@pytest.mark.parametrize(
    ("error", "after"),
    [
        (ProviderInvalidRequestError("no such batch", provider="openai", status=404), SENDING),
        (ProviderAuthError("no such key", provider="openai", status=401), LOST_AFTER),
    ],
)
async def test_what_nobody_will_ever_know_ends_all_the_same(
    stage: BatchStage, vendor: FakeBatches, monkeypatch: pytest.MonkeyPatch, error: ProviderError, after: timedelta
) -> None:
    monkeypatch.setattr(vendor_runs, "AT_VENDOR", LOST_AFTER)
    vendor.broken = error
    batch = await given_to_vendor(stage)
    async with stage.dispatcher(vendors=True):
        await until(lambda: stage.states(batch) == ["running"] * 3)
        await stage.batches.cancel(ACME, batch.id)
        vendor.deaf += [error] * 10_000
        await asyncio.sleep(after.total_seconds() - 60)
        assert stage.states(batch) == ["running"] * 3
        await stage.ended(batch)
    assert stage.states(batch) == ["cancelled"] * 3


async def test_a_part_that_is_gone_at_the_vendor_is_sent_again(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.broken = ProviderInvalidRequestError("no such batch", provider="openai", status=404)
    batch = await given_to_vendor(stage)
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 2, within_s=2 * SENDING.total_seconds())
        vendor.broken = None
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=3)


async def test_a_batch_that_is_cancelled_as_its_end_is_told_ends_as_it_was_told(stage: BatchStage) -> None:
    answering(stage.alpha)
    batch, told = await stage.submit(2), stage.events.ended

    async def and_cancelled(ended: Batch) -> None:
        await told(ended)
        await stage.batches.cancel(ACME, ended.id)

    stage.events.ended = and_cancelled  # type: ignore[method-assign]
    async with stage.running():
        ended = await stage.ended(batch)
    assert [each.state for each in stage.events.told] == [ended.state] == [BatchState.COMPLETED]
    assert {item.state for item in stage.items(batch)} == {ItemState.SUCCEEDED}


MARKED_S = 20.0


async def cancelled(stage: BatchStage, batch: Batch) -> None:
    await stage.batches.cancel(ACME, batch.id)


async def late(stage: BatchStage, batch: Batch) -> None:
    stage.store.batches["acme", batch.id] = replace(batch, deadline=stage.batches.now())


async def tried_anew(stage: BatchStage, batch: Batch) -> None:
    for index in range(2):
        change(stage, batch, index, state=ItemState.FAILED, due=None)
    ended = {"state": BatchState.COMPLETED, "counts": Counts(failed=2), "ended_at": stage.batches.now()}
    stage.store.batches["acme", batch.id] = replace(batch, **ended)
    await stage.batches.retry(ACME, batch.id, only_failed=True)


@pytest.mark.parametrize(
    ("begins", "then"),
    [(cancelled, ItemState.CANCELLED), (late, ItemState.FAILED), (tried_anew, ItemState.QUEUED)],
)
async def test_what_another_has_marked_is_looked_for_now_and_then(
    stage: BatchStage, monkeypatch: pytest.MonkeyPatch, begins: Any, then: ItemState
) -> None:
    """Until its mark is gone, as that of a process that was killed is after a while."""
    batch, move, refused = await stage.submit(2), stage.store.move, 0

    async def marked(moves: Sequence[Move]) -> Sequence[Item | None]:
        nonlocal refused
        free = [
            each for each in moves if each.index or refused >= 10_000 or asyncio.get_running_loop().time() > MARKED_S
        ]
        refused += len(moves) - len(free)
        done = iter(await move(free))
        return [next(done) if each in free else None for each in moves]

    monkeypatch.setattr(stage.store, "move", marked)
    await begins(stage, batch)
    async with stage.dispatcher():
        await until(lambda: {item.state for item in stage.items(batch)} == {then})
    assert 1 <= refused <= 10 * MARKED_S + 10
