"""Parts of a batch at a vendor, whoever is killed while they are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from persistence.batch_records import BatchMode, Counts, ItemState
from providers.batching import BatchLine, BatchResult, BatchStatus
from providers.errors import ProviderError, ProviderInvalidRequestError, ProviderTimeoutError
from providers.types import CompletionRequest, FinishReason, ProviderCompletion, Usage
from resolvers.batches.asked import BatchAsked
from resolvers.batches.vendor_runs import REST, SENDING
from resolvers.types import Target

from .batch_stage import BatchStage, inputs, open_batch_stage, until
from .scene import ACME
from .test_batch_observing import Listener


@dataclass
class FakeBatches:
    """A vendor's batches, done as soon as they are looked at. `named`: it keeps our names. `lost`: what comes in the
    place of the answer to the next ones, which it has by then; `refused`: in the place of the next ones."""

    named: bool = True
    lost: list[ProviderError | asyncio.Event] = field(default_factory=list)
    refused: list[ProviderError] = field(default_factory=list)
    sent: list[tuple[str, list[str]]] = field(default_factory=list)

    @property
    def codec(self) -> Any:
        return SimpleNamespace(most_lines=100, most_bytes=10**6, find=lambda: object() if self.named else None)

    def line(self, custom_id: str, request: CompletionRequest) -> BatchLine:
        return BatchLine(custom_id, "chat", request.model.encode())

    async def submit(self, lines: Sequence[BatchLine], name: str, **_: Any) -> BatchStatus:
        if self.refused:
            raise self.refused.pop(0)
        self.sent.append((name, [line.custom_id for line in lines]))
        if self.lost:
            lost = self.lost.pop(0)
            if isinstance(lost, ProviderError):
                raise lost
            lost.set()
            await asyncio.Event().wait()
        return BatchStatus(str(len(self.sent)), ended=False)

    async def look(self, batch_id: str, **_: Any) -> BatchStatus:
        return BatchStatus(batch_id, ended=True)

    async def find(self, name: str, **_: Any) -> BatchStatus | None:
        names = [each for each, _ in self.sent]
        return BatchStatus(str(names.index(name) + 1), ended=True) if self.named and name in names else None

    async def results(self, status: BatchStatus, **_: Any) -> AsyncGenerator[BatchResult, None]:
        for custom_id in self.sent[int(status.id) - 1][1]:
            yield BatchResult(custom_id, ProviderCompletion("a", finish_reason=FinishReason.STOP, usage=Usage(3, 2)))


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


@pytest.fixture
async def vendor(stage: BatchStage) -> FakeBatches:
    """OpenAI, as far as names go: batches are for vendors that are known to have them."""
    made, services = FakeBatches(), stage.scene.services
    stage.alpha.batches = made  # type: ignore[attr-defined]  # as a provider has them whose vendor does
    stage.scene.services = replace(services, vendors={**services.vendors, "openai": services.vendors["alpha"]})
    vendors: Any = await stage.batches.configs.vendors("acme")
    vendors["openai"] = vendors["alpha"]
    return made


async def submitted(stage: BatchStage) -> Any:
    asked = inputs(3, target=Target("openai", "gpt-4o-mini"))
    return await stage.batches.submit(ACME, BatchAsked(mode=BatchMode.PROVIDER), asked)


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


async def test_what_a_killed_process_had_sent_is_found_by_its_name(stage: BatchStage, vendor: FakeBatches) -> None:
    batch = await killed_as_it_sends(stage, vendor)
    assert stage.states(batch) == ["running"] * 3
    async with stage.dispatcher(vendors=True):
        await all_answered_once(stage, batch)
    assert [name for name, _ in vendor.sent] == [f"{batch.id}/1"], "it was sent once"


async def test_the_ends_of_its_items_are_told_by_their_mode(stage: BatchStage, vendor: FakeBatches) -> None:
    listener = Listener()
    stage.scene.services = replace(stage.scene.services, observer=listener)
    async with stage.dispatcher(vendors=True):
        await stage.ended(await submitted(stage))
    assert listener.ends == {(BatchMode.PROVIDER, ItemState.SUCCEEDED): 3}
    assert listener.collected_ids == [entry.completion_id for entry in stage.scene.store.entries]
    assert len(listener.collected_ids) == 3


async def test_where_a_vendor_keeps_no_names_it_is_sent_again(stage: BatchStage, vendor: FakeBatches) -> None:
    vendor.named = False
    batch = await killed_as_it_sends(stage, vendor)
    async with stage.dispatcher(vendors=True):
        await asyncio.sleep(SENDING.total_seconds() / 2)
        assert len(vendor.sent) == 1, "whoever sent it may be about to tell"
        await all_answered_once(stage, batch)
    assert len(vendor.sent) == 2


async def test_what_died_before_it_was_sent_is_sent(stage: BatchStage, vendor: FakeBatches) -> None:
    batch = await killed_as_it_sends(stage, vendor)
    vendor.sent.clear()  # it never arrived
    async with stage.dispatcher(vendors=True):
        await all_answered_once(stage, batch)
    assert [name for name, _ in vendor.sent] == [f"{batch.id}/2"]


async def test_a_part_whose_answer_was_lost_is_not_sent_twice(stage: BatchStage, vendor: FakeBatches) -> None:
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
