"""What every WebhookStore and WebhookOutbox keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from persistence.migrations.sqlite import migrate
from persistence.mongo.client import open_mongo
from persistence.mongo.webhook_outbox import MongoWebhookOutbox
from persistence.mongo.webhooks import MongoWebhooks
from persistence.ports import Conflict, StoreConflictError, WebhookOutbox, WebhookStore
from persistence.sqlite.database import open_database
from persistence.sqlite.webhook_outbox import SQLiteWebhookOutbox
from persistence.sqlite.webhooks import SQLiteWebhooks
from persistence.webhook_records import DeliveryState, WebhookDelivery
from tests.persistence.audit import noted
from tests.persistence.entries import NOON, at
from tests.persistence.webhooks import delivery, event, webhook
from tests.servers.mongo import migrated_database, shared_mongo

Stores = tuple[WebhookStore, WebhookOutbox]
Opener = Callable[[Path], AbstractAsyncContextManager[Stores]]
MICROSECOND = timedelta(microseconds=1)


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[Stores]:
    migrate(folder / "webhooks.db")
    async with open_database(folder / "webhooks.db") as database:
        yield SQLiteWebhooks(database), SQLiteWebhookOutbox(database)


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[Stores]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoWebhooks(mongo), MongoWebhookOutbox(mongo)


@pytest.fixture(params=[pytest.param(open_sqlite, id="sqlite"), pytest.param(open_mongodb, id="mongodb")])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


@pytest.fixture
def store(stores: Stores) -> WebhookStore:
    return stores[0]


@pytest.fixture
def outbox(stores: Stores) -> WebhookOutbox:
    return stores[1]


async def claim(
    outbox: WebhookOutbox, now: datetime = NOON, busy: tuple[str, ...] = (), resting: tuple[str, ...] = ()
) -> WebhookDelivery | None:
    return await outbox.claim(now=now, until=now + timedelta(seconds=60), busy=busy, resting=resting)


async def test_webhooks_are_found_as_they_were(store: WebhookStore) -> None:
    one = webhook(description="é 🔑", url="https://bücher.example/")
    other = webhook(
        events=("a.b", "c.d"), enabled=False, disabled_reason="gone", former="env:v1:b2xk", former_until=at(9)
    )
    for each in (one, other, webhook(organisation="globex")):
        await store.create(each, at_most=9, audit=noted)
    assert await store.of("acme") == [one, other]
    assert await store.by_id("acme", other.id) == other
    assert await store.by_id("globex", other.id) is None
    assert await store.of("nobody") == []


async def test_an_organisation_has_so_many_at_most(store: WebhookStore) -> None:
    await store.create(webhook(organisation="globex"), at_most=2, audit=noted)
    made = await asyncio.gather(
        *(store.create(webhook(), at_most=2, audit=noted) for _ in range(4)), return_exceptions=True
    )
    refused = [each for each in made if each is not None]
    assert len(refused) == 2
    assert all(isinstance(each, StoreConflictError) and each.on is Conflict.FULL for each in refused)
    assert len(await store.of("acme")) == 2


async def test_a_webhook_is_saved_at_its_revision_alone(store: WebhookStore) -> None:
    one = webhook()
    await store.create(one, at_most=9, audit=noted)
    changed = replace(one, url="https://other.example/", events=(), former="env:v1:b2xk", former_until=at(5))
    assert await store.save(changed, expected_revision=1, audit=noted) == replace(changed, revision=2)
    assert await store.of("acme") == [replace(changed, revision=2)]
    with pytest.raises(StoreConflictError) as caught:
        await store.save(one, expected_revision=1, audit=noted)
    assert caught.value.on is Conflict.REVISION
    assert await store.save(webhook(id=one.id, organisation="globex"), expected_revision=2, audit=noted) is None
    assert await store.of("acme") == [replace(changed, revision=2)]


async def test_what_is_deleted_is_gone(store: WebhookStore) -> None:
    one, other = webhook(), webhook()
    for each in (one, other):
        await store.create(each, at_most=9, audit=noted)
    assert not await store.delete("globex", one.id, audit=noted)
    assert await store.delete("acme", one.id, audit=noted)
    assert not await store.delete("acme", one.id, audit=noted)
    assert await store.of("acme") == [other]


async def test_every_webhook_by_pages_and_only_what_stands_is_sealed_anew(store: WebhookStore) -> None:
    kept = [webhook(organisation=each, former="env:v1:b2xk", former_until=at(5)) for each in ("a", "b", "{c}")]
    for each in reversed(kept):
        await store.create(each, at_most=9, audit=noted)
    first = await store.every(limit=2)
    assert [*first, *await store.every(limit=2, after=(first[-1].organisation, first[-1].id))] == kept
    assert not await store.reseal(replace(kept[0], former=None), "new", None)
    assert await store.reseal(kept[0], "new", "older")
    assert not await store.reseal(kept[0], "newer", None)
    assert await store.of("a") == [replace(kept[0], sealed="new", former="older")]
    with pytest.raises(ValueError, match="limit"):
        await store.every(limit=0)


async def test_times_are_whole_milliseconds(stores: Stores) -> None:
    store, outbox = stores
    with pytest.raises(ValueError, match="time"):
        await store.create(webhook(created_at=NOON + MICROSECOND), at_most=9, audit=noted)
    with pytest.raises(ValueError, match="time"):
        await outbox.add(event(), [delivery(created_at=NOON + MICROSECOND)])
    assert await outbox.add(event(), [])


async def test_an_event_is_added_once_with_all_its_deliveries(outbox: WebhookOutbox) -> None:
    both = [delivery(), delivery(webhook_id="whk_2")]
    added = await asyncio.gather(*(outbox.add(event(), both if n == 0 else [delivery()]) for n in range(4)))
    assert sum(added) == 1
    assert not await outbox.add(event(at=at(9)), [delivery()])
    assert await outbox.add(event(organisation="globex"), [])
    listed = [*await outbox.page("acme", "whk_1", limit=9), *await outbox.page("acme", "whk_2", limit=9)]
    assert len(listed) == (2 if added[0] else 1)
    assert await outbox.by_id("acme", listed[0].id) == listed[0]
    assert await outbox.by_id("globex", listed[0].id) is None


async def test_what_is_due_the_longest_is_claimed_first_and_by_one(outbox: WebhookOutbox) -> None:
    later, sooner, not_yet = delivery(due_at=at(2)), delivery(due_at=at(1)), delivery(due_at=at(10))
    await outbox.add(event(), [later, sooner, not_yet])
    assert await claim(outbox, at(0)) is None
    claims = await asyncio.gather(*(claim(outbox, at(3)) for _ in range(4)))
    until = at(3) + timedelta(seconds=60)
    found = [each for each in claims if each is not None]
    expected = [replace(each, attempts=1, due_at=until) for each in (sooner, later)]
    assert sorted(found, key=lambda each: each.id) == sorted(expected, key=lambda each: each.id)
    again = await claim(outbox, until)
    assert again is not None
    assert again.attempts in (1, 2)  # whose claim is over is given out once more


async def test_busy_organisations_and_resting_webhooks_are_passed_over(outbox: WebhookOutbox) -> None:
    for number, (organisation, name) in enumerate([("acme", "whk_1"), ("acme", "whk_2"), ("globex", "whk_3")]):
        made = delivery(organisation=organisation, webhook_id=name, due_at=at(number))
        await outbox.add(event(organisation=organisation, event_id=name), [made])
    now = at(9)
    assert await claim(outbox, now, busy=("acme",), resting=("whk_3",)) is None
    third = await claim(outbox, now, busy=("acme",))
    second = await claim(outbox, now, resting=("whk_1",))
    assert third is not None
    assert second is not None
    assert (third.webhook_id, second.webhook_id) == ("whk_3", "whk_2")


async def test_what_an_attempt_came_to_is_recorded_once(outbox: WebhookOutbox) -> None:
    await outbox.add(event(), [delivery()])
    first = await claim(outbox)
    assert first is not None
    failed = replace(first, due_at=at(5), status=500, reason="HTTP 500", attempted_at=NOON)
    assert await outbox.record(failed)
    assert await outbox.by_id("acme", first.id) == failed
    second = await claim(outbox, at(5))
    assert second is not None
    assert not await outbox.record(replace(first, state=DeliveryState.DELIVERED, due_at=None))
    done = replace(second, state=DeliveryState.DELIVERED, due_at=None, status=204, reason=None, attempted_at=at(5))
    assert await outbox.record(done)
    assert not await outbox.record(replace(done, status=500))
    assert await outbox.page("acme", "whk_1", limit=9) == [done]
    assert await claim(outbox, at(10_000)) is None


async def test_what_is_over_is_tried_again_when_it_is_asked_for(outbox: WebhookOutbox) -> None:
    await outbox.add(event(), [delivery()])
    pending = await claim(outbox)
    assert pending is not None
    assert not await outbox.again(replace(pending, due_at=at(1)))
    failed = replace(pending, state=DeliveryState.FAILED, due_at=None, reason="x", attempted_at=NOON)
    assert await outbox.record(failed)
    once_more = replace(failed, state=DeliveryState.PENDING, due_at=at(2), attempts_at_most=9)
    assert await outbox.again(once_more)
    assert not await outbox.again(once_more)
    assert await claim(outbox, at(2)) == replace(once_more, attempts=2, due_at=at(2) + timedelta(seconds=60))


async def test_deliveries_by_pages(outbox: WebhookOutbox) -> None:
    made = [delivery() for _ in range(5)]
    await outbox.add(event(), [*made, delivery(webhook_id="whk_2")])
    newest = sorted(made, key=lambda each: each.id, reverse=True)
    assert await outbox.page("acme", "whk_1", limit=3) == newest[:3]
    assert await outbox.page("acme", "whk_1", limit=3, before=newest[2].id) == newest[3:]
    assert await outbox.page("globex", "whk_1", limit=3) == []
    with pytest.raises(ValueError, match="limit"):
        await outbox.page("acme", "whk_1", limit=0)
    assert await outbox.waiting("acme", "whk_1", at_most=9) == 5
    assert await outbox.waiting("acme", "whk_1", at_most=4) == 4
    assert await outbox.waiting("globex", "whk_1", at_most=4) == 0


async def test_what_is_old_and_over_is_forgotten(outbox: WebhookOutbox) -> None:
    over = {"state": DeliveryState.FAILED, "due_at": None}
    old, young, pending = delivery(**over), delivery(**over, created_at=at(9)), delivery()
    await outbox.add(event(), [old, young, pending])
    await outbox.add(event("evt_2", at=at(9)), [])
    assert await outbox.forget(deliveries_before=at(5), events_before=at(5)) == 2
    assert await outbox.forget(deliveries_before=at(5), events_before=at(5)) == 0
    left = await outbox.page("acme", "whk_1", limit=9)
    assert sorted(each.id for each in left) == sorted([young.id, pending.id])
    assert await outbox.add(event(), [])
    assert not await outbox.add(event("evt_2"), [])
