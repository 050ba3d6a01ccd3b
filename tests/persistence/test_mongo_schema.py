"""The schema of a real MongoDB: how it comes, is brought forward, and what is said where it is another one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pymongo
import pytest

from persistence.config_records import ConfigFilter, ConfigOrder
from persistence.migrations import mongo as steps
from persistence.migrations.mongo import migrate
from persistence.mongo import client as module
from persistence.mongo.client import NEEDED, SchemaVersionError, open_mongo
from persistence.mongo.configs import MongoConfigs
from persistence.mongo.prices import MongoPrices
from tests.persistence.audit import noted
from tests.persistence.configs import config
from tests.persistence.entries import NOON, at
from tests.persistence.prices import price_rule
from tests.servers.mongo import empty_database, migrated_database, shared_mongo

COLLECTIONS = {
    "configs",
    "config_versions",
    "price_rules",
    "price_books",
    "api_keys",
    "api_key_digests",
    "api_key_books",
    "provider_keys",
    "audit_events",
    "limits",
    "trusted_documents",
    "batches",
    "batch_items",
    "batch_vendor_runs",
    "leaders",
    "job_failures",
    "schema",
    "webhooks",
    "webhook_books",
    "webhook_events",
    "webhook_deliveries",
}


@pytest.fixture
async def uri() -> str:
    return await migrated_database(shared_mongo())


@pytest.fixture
def nothing() -> str:
    return empty_database(shared_mongo())


@pytest.fixture
def database(uri: str) -> Iterator[pymongo.database.Database[dict[str, Any]]]:
    """The same, as its operator sees it."""
    with pymongo.MongoClient(uri) as client:
        yield client.get_default_database()


async def test_the_schema_comes_once(nothing: str) -> None:
    await asyncio.gather(*(migrate(nothing) for _ in range(3)))
    await migrate(nothing)
    with pymongo.MongoClient(nothing) as client:
        database = client.get_default_database()
        assert set(database.list_collection_names()) == COLLECTIONS
        assert list(database.schema.find()) == [{"_id": "schema", "version": NEEDED}]
        for name in COLLECTIONS - {"schema"}:
            assert "$jsonSchema" in database[name].options()["validator"]
        indexes = database.configs.index_information()
    assert set(indexes) == {"_id_", "id", "updated", "live"}
    assert indexes["id"]["unique"]
    assert indexes["live"]["partialFilterExpression"] == {"archived_at": None}


async def test_what_a_migration_that_broke_off_left_is_made_whole(nothing: str) -> None:
    with pymongo.MongoClient(nothing) as client:
        client.get_default_database().create_collection("configs")
        await migrate(nothing)
        assert "$jsonSchema" in client.get_default_database().configs.options()["validator"]


async def test_what_is_there_stays_when_it_is_migrated(uri: str, database: Any) -> None:
    made, rule = config(), price_rule()
    async with open_mongo(uri) as mongo:
        await MongoConfigs(mongo).create(made, audit=noted)
        await MongoPrices(mongo).add(rule, at_most=9, audit=noted)
    database.schema.drop()
    await migrate(uri)
    async with open_mongo(uri) as mongo:
        assert await MongoConfigs(mongo).by_id("acme", made.id) == made
        assert await MongoPrices(mongo).unended("acme", since=NOON) == [rule]


async def test_a_filled_database_is_brought_forward_while_the_release_before_goes_on(
    nothing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And lists of what is live look at no archived one."""
    made = [config(slug=f"s{number:03}", updated_at=at(number), archived_at=at(999)) for number in range(200)]
    monkeypatch.setattr(module, "NEEDED", 1)
    monkeypatch.setattr(steps, "NEEDED", 1)
    monkeypatch.setattr(steps, "_STEPS", steps._STEPS[:1])
    await migrate(nothing)
    async with open_mongo(nothing) as mongo:
        store = MongoConfigs(mongo)
        for each in made:
            await store.create(each, audit=noted)
        monkeypatch.undo()
        await migrate(nothing)
        await store.create(config(slug="live"), audit=noted)
    with pymongo.MongoClient(nothing) as asking:
        database = asking.get_default_database()
        assert database.schema.find_one() == {"_id": "schema", "version": NEEDED}
        database.command("profile", 2)
        async with open_mongo(nothing) as mongo:
            store = MongoConfigs(mongo)
            live = await store.page("acme", where=ConfigFilter(archived=False), order=ConfigOrder.UPDATED, limit=50)
            database.command("profile", 0)
            every = await store.page("acme", where=ConfigFilter(), order=ConfigOrder.SLUG, limit=500)
        (seen,) = database.system.profile.find({"command.find": "configs"})
    assert [each.slug for each in live] == ["live"]
    assert seen["keysExamined"] == 1
    assert every == [*live, *made]


@pytest.mark.parametrize(("version", "said"), [(0, "run `ai-middleware migrate`"), (99, "newer release")])
async def test_another_schema_is_told_and_nothing_is_written(uri: str, database: Any, version: int, said: str) -> None:
    database.schema.update_one({}, {"$set": {"version": version}})
    async with open_mongo(uri) as mongo:
        with pytest.raises(SchemaVersionError, match=said):
            await MongoConfigs(mongo).create(config(), audit=noted)
        with pytest.raises(SchemaVersionError, match=said):
            await MongoPrices(mongo).add(price_rule(), at_most=9, audit=noted)
        assert said in str(await mongo.look())
        assert database.configs.count_documents({}) + database.price_rules.count_documents({}) == 0
        database.schema.update_one({}, {"$set": {"version": NEEDED}})
        await MongoConfigs(mongo).create(config(), audit=noted)
        assert await mongo.look() is None
        database.schema.update_one({}, {"$set": {"version": 99}})
        await MongoConfigs(mongo).create(config(), audit=noted)  # it runs already: the next release is being rolled out
    if version == 99:
        with pytest.raises(SchemaVersionError, match=said):
            await migrate(uri)


async def test_without_a_schema_nothing_is_written(nothing: str) -> None:
    async with open_mongo(nothing) as mongo:
        with pytest.raises(SchemaVersionError, match="no schema"):
            await MongoConfigs(mongo).create(config(), audit=noted)
        await migrate(nothing)
        await MongoConfigs(mongo).create(config(), audit=noted)
