"""The webhook that a batch names: one of the organisation's, and enabled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from persistence.migrations.sqlite import migrate
from persistence.sqlite.database import open_database
from persistence.sqlite.webhook_outbox import SQLiteWebhookOutbox
from persistence.sqlite.webhooks import SQLiteWebhooks
from resolvers.batches.asked import BatchAsked
from resolvers.batches.events import WebhookEvents
from resolvers.errors import BadUserInputError, ConflictError, NotFoundError
from resolvers.webhook_events import EventType
from resolvers.webhooks import NewWebhook, WebhookChange, Webhooks
from tests.resolvers.batch_stage import BatchStage, answering, inputs, open_batch_stage
from tests.resolvers.receivers import webhooks_in
from tests.resolvers.scene import ACME, GLOBEX

NEW = NewWebhook("https://hooks.example/a", (EventType.BATCH_COMPLETED,))


@pytest.fixture
async def webhooks(tmp_path: Path) -> AsyncIterator[Webhooks]:
    migrate(tmp_path / "webhooks.db")
    async with open_database(tmp_path / "webhooks.db") as database:
        yield webhooks_in(SQLiteWebhooks(database), SQLiteWebhookOutbox(database))


@pytest.fixture
async def stage(webhooks: Webhooks) -> AsyncIterator[BatchStage]:
    async with open_batch_stage() as stage:
        stage.batches = replace(stage.batches, webhooks=webhooks)
        stage.events = WebhookEvents(webhooks)  # type: ignore[assignment]  # the real one
        yield stage


async def refused(stage: BatchStage, kind: type[Exception], **asked: Any) -> Any:
    for what in (stage.batches.submit, stage.batches.rehearse):
        with pytest.raises(kind) as caught:
            await what(ACME, BatchAsked(**asked), inputs(1))  # type: ignore[operator]  # one of two
    assert (stage.store.batches, stage.store.begun) == ({}, {})
    return caught.value


async def test_it_alone_is_told_of_the_end(stage: BatchStage, webhooks: Webhooks) -> None:
    answering(stage.alpha)
    (_, named), (_, other) = [await webhooks.create(ACME, NEW) for _ in range(2)]
    batch = await stage.submit(2, webhook=named.id)
    assert batch.webhook == named.id
    async with stage.running():
        await stage.ended(batch)
        await stage.ended(await stage.submit(1))
    told = [len((await webhooks.deliveries(ACME, each.id, first=9, after=None)).deliveries) for each in (named, other)]
    assert told == [2, 1]


async def test_what_is_not_there_is_refused_as_another_organisations_is(stage: BatchStage, webhooks: Webhooks) -> None:
    _, foreign = await webhooks.create(GLOBEX, NEW)
    told = {str(await refused(stage, NotFoundError, webhook=each)) for each in (foreign.id, "whk_" + "0" * 32, "x")}
    assert told == {"no such webhook"}


async def test_a_disabled_one_is_refused_by_name(stage: BatchStage, webhooks: Webhooks) -> None:
    _, named = await webhooks.create(ACME, replace(NEW, enabled=False))
    error = await refused(stage, BadUserInputError, webhook=named.id)
    assert (error.path, named.id in error.message) == (("input", "webhook"), True)


async def test_a_key_tells_the_same_batch_also_when_the_webhook_is_gone(stage: BatchStage, webhooks: Webhooks) -> None:
    _, named = await webhooks.create(ACME, NEW)
    asked = BatchAsked(webhook=named.id, idempotency_key="k")
    batch = await stage.batches.submit(ACME, asked, inputs(1))
    await webhooks.change(ACME, named.id, WebhookChange(enabled=False))
    assert (await stage.batches.submit(ACME, asked, inputs(1))).id == batch.id
    with pytest.raises(ConflictError):
        await stage.batches.submit(ACME, replace(asked, webhook=None), inputs(1))
