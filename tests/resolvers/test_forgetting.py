"""What is left of batches, and when it goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from persistence.batch_records import Batch
from providers.errors import ProviderInvalidRequestError
from providers.types import Message, Role
from resolvers.batches.asked import BatchAsked
from resolvers.batches.dispatching import FORGET_S
from resolvers.batches.forgetting import UNOPENED_FOR
from resolvers.batches.json_texts import UPLOADS
from resolvers.errors import NotFoundError, ServiceUnavailableError

from .batch_stage import KEPT_FOR, BatchStage, answering, inputs, open_batch_stage, until
from .scene import ACME

WIDE = "w" * 200_000
TURN_S = FORGET_S + 60


@pytest.fixture
async def stage() -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        yield stage


def names(stage: BatchStage, batch: Batch) -> list[str]:
    return [name for _, name in stage.objects.files if batch.id in name]


async def large(stage: BatchStage) -> Batch:
    """Its inputs are files."""
    return await stage.batches.submit(ACME, BatchAsked(), inputs(3, messages=(Message(Role.USER, WIDE),)))


async def test_a_batch_is_there_for_so_long_after_its_end(stage: BatchStage) -> None:
    answering(stage.alpha)
    async with stage.running():
        old = await stage.ended(await large(stage))
        booked = list(stage.scene.store.entries)
        assert len(names(stage, old)) == 4, "three inputs, and the results"
        await asyncio.sleep(KEPT_FOR.total_seconds() / 2)
        young = await stage.ended(await large(stage))
        assert await stage.batches.get(ACME, old.id) == old
        await asyncio.sleep(KEPT_FOR.total_seconds() / 2 + TURN_S)
        with pytest.raises(NotFoundError):
            await stage.batches.get(ACME, old.id)
        assert names(stage, old) == []
        assert (old.organisation, old.id) not in stage.store.kept
        assert await stage.batches.get(ACME, young.id) == young
        assert len(names(stage, young)) == 4
    assert stage.scene.store.entries[: len(booked)] == booked, "the ledger keeps what was spent"


async def test_what_runs_is_not_forgotten_however_old(stage: BatchStage) -> None:
    poison = ProviderInvalidRequestError("no", provider="alpha", status=400)
    stage.alpha.will(*[[poison]] * 3)
    async with stage.running():
        batch = await stage.ended(await large(stage))
        await asyncio.sleep(KEPT_FOR.total_seconds() - TURN_S)
        stage.alpha.will([poison])
        again = await stage.batches.retry(ACME, batch.id, only_failed=True)
        answering(stage.alpha)
        await stage.ended(again)
        await asyncio.sleep(KEPT_FOR.total_seconds() / 2)
        assert (await stage.batches.get(ACME, batch.id)).run == 2


async def test_files_of_a_batch_that_was_never_opened_go_too(stage: BatchStage) -> None:
    batch = await large(stage)
    stage.store.begun[batch.organisation, batch.id] = stage.store.batches.pop((batch.organisation, batch.id))
    async with stage.dispatcher():
        await asyncio.sleep(UNOPENED_FOR.total_seconds() - TURN_S)
        assert len(names(stage, batch)) == 3
        await asyncio.sleep(2 * TURN_S)
    assert (names(stage, batch), stage.store.begun) == ([], {})


async def test_uploads_go_once_a_day(stage: BatchStage) -> None:
    async with stage.dispatcher():
        await asyncio.sleep(2.5 * 86_400)
    assert [prefix for _, prefix in stage.objects.forgotten] == [UPLOADS] * 3
    first, second, _ = [than for than, _ in stage.objects.forgotten]
    assert (second - first).total_seconds() == pytest.approx(86_400, abs=TURN_S)


async def test_while_files_can_not_be_deleted_batches_go_on(stage: BatchStage) -> None:
    answering(stage.alpha)
    async with stage.running():
        old = await stage.ended(await stage.submit(1))
        stage.objects.down = True
        await asyncio.sleep(KEPT_FOR.total_seconds() + TURN_S)
        other = await stage.submit(2)
        await until(lambda: stage.now(other).counts.succeeded == 2)
        assert (old.organisation, old.id) in stage.store.kept, "it waits for its files"
        stage.objects.down = False
        await asyncio.sleep(2 * TURN_S)
        assert (old.organisation, old.id) not in stage.store.kept
        await stage.ended(other)


async def test_where_nobody_could_work_on_it_nothing_is_accepted(stage: BatchStage) -> None:
    stage.batches = replace(stage.batches, refused="set OBJECT_STORE_URL")
    with pytest.raises(ServiceUnavailableError, match="set OBJECT_STORE_URL"):
        await stage.submit(1)
    assert (stage.store.batches, stage.store.begun) == ({}, {})
