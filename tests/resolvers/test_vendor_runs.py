"""Parts of a batch at a vendor, whoever is killed while they are on their way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from persistence.batch_records import ENDED, BatchMode, BatchState, Counts, ItemState, VendorRun
from providers.errors import ProviderInvalidRequestError, ProviderRateLimitedError, ProviderTimeoutError
from resolvers.batches.asked import BatchAsked
from resolvers.batches.dispatching import BESIDE_AT_MOST
from resolvers.batches.vendor_parts import REST
from resolvers.batches.vendor_runs import PARTS_AT_ONCE, POLL_AT_MOST_S, POLL_S
from resolvers.batches.vendor_search import SENDING
from resolvers.principal import Principal
from resolvers.types import Target

from .batch_stage import BatchStage, answering, inputs, open_batch_stage, until
from .fake_batches import FakeBatches, with_vendor
from .scene import ACME
from .test_batch_observing import Listener


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


@pytest.fixture
async def vendor(stage: BatchStage) -> FakeBatches:
    return await with_vendor(stage)


async def submitted(stage: BatchStage, principal: Principal = ACME) -> Any:
    asked = inputs(3, target=Target("openai", "gpt-4o-mini"))
    return await stage.batches.submit(principal, BatchAsked(mode=BatchMode.PROVIDER), asked)


async def killed_as_it_sends(stage: BatchStage, vendor: FakeBatches) -> Any:
    """A process sends a part, and dies before it knows of the vendor's answer."""
    has_it = asyncio.Event()
    vendor.lost.append(has_it)
    batch = await submitted(stage)
    async with stage.dispatcher(vendors=True):
        await has_it.wait()
    return batch


async def all_answered_once(stage: BatchStage, batch: Any) -> None:
    async with asyncio.timeout(3600):
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=3)
    booked = [entry.completion_id for entry in stage.scene.store.entries]
    assert sorted(booked) == sorted(item.completion_id or "" for item in stage.items(batch))


@pytest.mark.parametrize("named", [True, False])
async def test_what_a_killed_process_had_sent_is_found(stage: BatchStage, vendor: FakeBatches, *, named: bool) -> None:
    """By its name, or else by what its results say."""
    vendor.named = named
    batch = await killed_as_it_sends(stage, vendor)
    assert stage.states(batch) == ["running"] * 3
    async with stage.dispatcher(vendors=True):
        await all_answered_once(stage, batch)
    assert [name for name, _ in vendor.sent] == [f"{batch.id}/1"], "it was sent once"


async def test_few_parts_are_in_memory_at_once_and_the_others_have_their_turn(
    stage: BatchStage, vendor: FakeBatches
) -> None:
    vendor.gate = asyncio.Event()
    batches = [await submitted(stage) for _ in range(PARTS_AT_ONCE + 2)]
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(60)
        assert vendor.coming == PARTS_AT_ONCE
        vendor.gate.set()
        for batch in batches:
            await stage.ended(batch)
    assert len(vendor.sent) == len(batches)


async def test_the_ends_of_its_items_are_told_by_their_mode(stage: BatchStage, vendor: FakeBatches) -> None:
    listener = Listener()
    stage.scene.services = replace(stage.scene.services, observer=listener)
    async with stage.dispatcher(vendors=True):
        await stage.ended(await submitted(stage))
    assert listener.ends == {(BatchMode.PROVIDER, ItemState.SUCCEEDED): 3}
    assert listener.collected_ids == [entry.completion_id for entry in stage.scene.store.entries]
    assert len(listener.collected_ids) == 3


async def test_a_vendor_that_takes_its_time_is_asked_less_and_less(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.working = True
    batch = await submitted(stage)
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(2 * 3600)
        pauses = [later - sooner for sooner, later in itertools.pairwise(vendor.looks)]
        vendor.working = False
        await all_answered_once(stage, batch)
    assert [round(pause / POLL_S) for pause in pauses[:6]] == [1, 2, 4, 8, 16, 32]
    assert {round(pause / POLL_S) for pause in pauses[6:]} == {round(POLL_AT_MOST_S / POLL_S)}


async def test_one_that_may_be_it_is_waited_for(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.named, vendor.working = False, True
    batch = await killed_as_it_sends(stage, vendor)
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(10 * SENDING.total_seconds())
        assert len(vendor.sent) == 1
        vendor.working = False
        await all_answered_once(stage, batch)
    assert len(vendor.sent) == 1


async def test_what_others_sent_is_not_taken_for_ours(stage: BatchStage, vendor: FakeBatches) -> None:
    """It has as many lines. What never arrived is sent."""
    vendor.named = False
    batch = await killed_as_it_sends(stage, vendor)
    theirs = vendor.sent[0] = ("", ["0-1", f"{batch.id}-0-2", f"bat_{'0' * 32}-2-1"])
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(SENDING.total_seconds() / 2)
        assert vendor.sent == [theirs], "whoever sent it may be about to tell"
        await all_answered_once(stage, batch)
    assert [name for name, _ in vendor.sent] == ["", f"{batch.id}/2"]


async def test_what_died_before_it_was_sent_is_sent(stage: BatchStage, vendor: FakeBatches) -> None:
    batch = await killed_as_it_sends(stage, vendor)
    vendor.sent.clear()  # it never arrived
    async with stage.dispatcher(vendors=True):
        await all_answered_once(stage, batch)
    assert [name for name, _ in vendor.sent] == [f"{batch.id}/2"]


@pytest.mark.parametrize("named", [True, False])
async def test_a_part_whose_answer_was_lost_is_not_sent_twice(
    stage: BatchStage, vendor: FakeBatches, *, named: bool
) -> None:
    vendor.named = named
    vendor.lost.append(ProviderTimeoutError("no answer in time", provider="openai"))
    batch = await submitted(stage)
    async with stage.dispatcher(vendors=True):
        await all_answered_once(stage, batch)
    assert len(vendor.sent) == 1


async def test_what_never_left_is_sent_again_soon(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.refused.append(ProviderTimeoutError("no connection in time", provider="openai", sent=False))
    batch = await submitted(stage)
    started = asyncio.get_running_loop().time()
    async with stage.dispatcher(vendors=True):
        await until(lambda: len(vendor.sent) == 1)
        assert asyncio.get_running_loop().time() - started < 2 * REST.total_seconds()
        await all_answered_once(stage, batch)


async def test_what_a_vendor_refuses_fails(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.refused.append(ProviderInvalidRequestError("no such model", provider="openai", status=400))
    batch = await submitted(stage)
    async with stage.dispatcher(vendors=True):
        ended = await stage.ended(batch)
    assert ended.counts == Counts(failed=3)
    assert {item.error.code for item in stage.items(batch) if item.error} == {"PROVIDER_INVALID_REQUEST"}


async def test_many_batches_at_a_vendor_hold_up_nobody_elses(stage: BatchStage, vendor: FakeBatches) -> None:
    """More than go on beside each other, and both of the others' come behind them: one is sent, one ends."""
    vendor.working = True
    others = replace(ACME, organisation="zulu")
    for _ in range(BESIDE_AT_MOST):
        await submitted(stage)
    sent = await submitted(stage, others)
    answering(stage.alpha)
    lived = await stage.submit(principal=others)
    async with stage.dispatcher(vendors=True), stage.worker():
        await until(lambda: stage.states(sent) == ["running"] * 3)
        await until(lambda: stage.now(lived).state in ENDED)


async def test_one_that_leads_no_more_does_not_take_the_part_of_who_does(
    stage: BatchStage, vendor: FakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He stalls between his look at the parts and his own."""
    add, stalls, goes_on = stage.store.add_vendor_run, asyncio.Event(), asyncio.Event()

    async def stalled_once(run: VendorRun) -> bool:
        if not stalls.is_set():
            stalls.set()
            await goes_on.wait()
        return await add(run)

    async def both(*_: object, **__: object) -> bool:
        return True

    monkeypatch.setattr(stage.store, "add_vendor_run", stalled_once)
    monkeypatch.setattr(stage.store, "lead", both)
    vendor.working = True
    batch = await submitted(stage)
    async with stage.dispatcher(vendors=True):
        await stalls.wait()
        async with stage.dispatcher(vendors=True):
            await until(lambda: len(vendor.sent) == 1)
            goes_on.set()
            await asyncio.sleep(POLL_S)
            vendor.working = False
            ended = await stage.ended(batch)
    assert (ended.counts, len(vendor.sent)) == (Counts(succeeded=3), 1)


async def test_a_vendor_that_is_in_trouble_is_not_given_the_next_part_at_once(
    stage: BatchStage, vendor: FakeBatches
) -> None:
    busy = ProviderRateLimitedError("slow down", provider="openai", status=429)
    vendor.refused += [busy, busy]
    asked = inputs(vendor.codec.most_lines + 50, target=Target("openai", "gpt-4o-mini"))
    batch = await stage.batches.submit(ACME, BatchAsked(mode=BatchMode.PROVIDER), asked)
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(REST.total_seconds() / 2)
        assert len(vendor.refused) == 1
        ended = await stage.ended(batch)
    assert ended.counts == Counts(succeeded=len(asked))


async def test_what_a_vendor_did_not_come_to_is_late_after_the_deadline(stage: BatchStage, vendor: FakeBatches) -> None:
    """Nobody has cancelled it; what is with the vendor by then is waited for."""
    vendor.working = True
    deadline = stage.batches.now() + timedelta(hours=1)
    asked = inputs(3, target=Target("openai", "gpt-4o-mini"))
    batch = await stage.batches.submit(ACME, BatchAsked(mode=BatchMode.PROVIDER, deadline=deadline), asked)
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(2 * 3600)
        assert stage.states(batch) == ["running"] * 3
        vendor.cancelled.add("1")  # as one that has expired there
        ended = await stage.ended(batch)
    assert (ended.state, ended.counts) == (BatchState.COMPLETED, Counts(failed=3))
    assert {item.error.code for item in stage.items(batch) if item.error} == {"DEADLINE_EXCEEDED"}
