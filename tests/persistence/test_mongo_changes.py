"""MongoDB's change stream: what is written is told of, over restarts and lost connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pymongo
import pytest

from persistence.change_records import (
    AnythingChanged,
    ApiKeyChanged,
    Change,
    ConfigChanged,
    PricesChanged,
    ProviderKeysChanged,
)
from persistence.migrations.mongo import migrate
from persistence.mongo.api_keys import MongoApiKeys
from persistence.mongo.changes import MongoChanges
from persistence.mongo.client import open_mongo
from persistence.mongo.configs import MongoConfigs
from persistence.mongo.prices import MongoPrices
from persistence.mongo.provider_keys import MongoProviderKeys
from persistence.ports import StoreUnavailableError
from tests.persistence.api_keys import api_key
from tests.persistence.audit import noted
from tests.persistence.configs import CONTENT, config
from tests.persistence.entries import NOON, at
from tests.persistence.prices import price_rule
from tests.persistence.provider_keys import provider_key
from tests.servers.mongo import Mongo as Server
from tests.servers.mongo import empty_database, migrated_database, running_mongo, shared_mongo
from tests.servers.proxy import proxy_to


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_mongo() as started:
        yield started


@asynccontextmanager
async def reading(feed: MongoChanges) -> AsyncIterator[AsyncGenerator[Change, None]]:
    async with asyncio.timeout(20), aclosing(feed.changes()) as changes:
        yield changes


def operation(client: pymongo.MongoClient[dict[str, Any]], order: int) -> Any:
    """When the oldest or the newest of the server's history was."""
    found = client.local["oplog.rs"].find_one(sort=[("$natural", order)])
    assert found is not None
    return found["ts"]


async def test_each_write_is_told_of_with_its_key(server: Server) -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri) as ours, open_mongo(uri) as theirs:
        configs, prices = MongoConfigs(theirs), MongoPrices(theirs)
        made, rule = config(slug="greet"), price_rule(organisation="globex")
        async with reading(MongoChanges(ours)) as changes:
            assert await anext(changes) == AnythingChanged(), "what came before the first look is not known"
            await configs.create(made, audit=noted)
            await configs.publish_draft("acme", made.id, expected_revision=1, at=at(1), by="x", audit=noted)
            await prices.add(rule, at_most=9, audit=noted)
            await prices.end("globex", rule.id, at(9), now=NOON, audit=noted)
            greet, globex = ConfigChanged("acme", "greet"), PricesChanged("globex")
            assert [await anext(changes) for _ in range(4)] == [greet, greet, globex, globex]


async def test_a_key_that_is_written_is_told_of_and_one_that_is_used_is_not() -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri) as ours, open_mongo(uri) as theirs:
        keys, made = MongoApiKeys(theirs), api_key()
        async with reading(MongoChanges(ours)) as changes:
            await anext(changes)
            await keys.create(made, "digest", at_most=5, audit=noted)
            await keys.note_uses({("acme", made.id): at(1)})
            await keys.rotate("acme", made.id, "other", hint="aim_x", until=at(2), at=at(1), audit=noted)
            await keys.note_uses({("acme", made.id): at(2)})
            await keys.revoke("acme", made.id, at=at(3), by="x", audit=noted)
            await MongoConfigs(theirs).create(config(slug="greet"), audit=noted)
            key = ApiKeyChanged("acme", made.id)
            assert [await anext(changes) for _ in range(4)] == [key, key, key, ConfigChanged("acme", "greet")]


async def test_an_organisation_s_own_provider_keys_are_told_of() -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri) as ours, open_mongo(uri) as theirs:
        keys, made = MongoProviderKeys(theirs), provider_key()
        async with reading(MongoChanges(ours)) as changes:
            await anext(changes)
            await keys.put(made, audit=noted)
            assert await keys.reseal(made, "env:v1:YW5ldw==")
            assert await keys.delete("acme", "openai", audit=noted)
            assert [await anext(changes) for _ in range(3)] == [ProviderKeysChanged("acme")] * 3


async def test_what_an_operator_does_by_hand_is_told_of_too() -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri) as mongo:
        await MongoConfigs(mongo).create(config(slug="greet"), audit=noted)
        with pymongo.MongoClient(uri) as client:
            database = client.get_default_database()
            async with reading(MongoChanges(mongo)) as changes:
                await anext(changes)
                database.configs.update_one({}, {"$set": {"archived_at": NOON}})
                assert await anext(changes) == ConfigChanged("acme", "greet")
                database.configs.delete_one({})
                assert await anext(changes) == ConfigChanged("acme", "greet")
                database.price_rules.drop()
                assert await anext(changes) == AnythingChanged()


async def test_after_a_database_that_is_dropped_it_begins_anew() -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri) as mongo:
        feed = MongoChanges(mongo)
        async with reading(feed) as changes:
            await anext(changes)
            with pymongo.MongoClient(uri) as client:
                client.drop_database(client.get_default_database().name)
            assert {type(change) async for change in changes} == {AnythingChanged}
        await migrate(uri)
        async with reading(feed) as changes:
            assert await anext(changes) == AnythingChanged()


async def rest(changes: AsyncGenerator[Change, None]) -> list[Change]:
    return [change async for change in changes]


async def test_nothing_is_left_out_though_the_server_is_killed_and_the_feed_breaks_off(server: Server) -> None:
    uri = await migrated_database(server)
    [node] = server.nodes
    async with open_mongo(uri, timeout_s=2) as ours:
        feed = MongoChanges(ours)
        async with reading(feed) as changes:
            await anext(changes)
            node.kill()
            with pytest.raises(StoreUnavailableError):
                await rest(changes)
        await asyncio.to_thread(server.restart, node)
        async with open_mongo(uri) as theirs:
            await MongoConfigs(theirs).create(config(slug="meanwhile"), audit=noted)
        async with reading(feed) as changes:
            assert await anext(changes) == ConfigChanged("acme", "meanwhile")


async def test_a_connection_that_is_cut_is_not_noticed() -> None:
    uri = await migrated_database(shared_mongo())
    name = pymongo.uri_parser.parse_uri(uri)["database"]
    async with proxy_to(shared_mongo().nodes[0].port) as proxy, open_mongo(uri) as theirs:
        configs, made = MongoConfigs(theirs), config(slug="greet")
        await configs.create(made, audit=noted)
        through_it = f"mongodb://127.0.0.1:{proxy.port}/{name}?directConnection=true"
        async with open_mongo(through_it) as ours, reading(MongoChanges(ours)) as changes:
            await anext(changes)
            for number in range(1, 6):
                asked = asyncio.ensure_future(anext(changes))
                assert await proxy.cut() > 0
                await configs.save_draft("acme", made.id, CONTENT, expected_revision=number, at=at(number), audit=noted)
                assert await asked == ConfigChanged("acme", "greet")


async def test_a_history_that_is_lost_is_told_as_anything() -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri) as mongo:
        feed = MongoChanges(mongo)
        async with reading(feed) as changes:
            await anext(changes)
        feed._token = {"_data": "82"}  # no server knows it
        async with reading(feed) as changes:
            with pytest.raises(StoreUnavailableError, match="MongoDB: "):
                await anext(changes)
        async with reading(feed) as changes:
            assert await anext(changes) == AnythingChanged()


async def test_a_history_that_has_rolled_over_is_told_as_anything() -> None:
    with running_mongo(options=("--oplogSize=1", "--syncdelay=1")) as small:
        uri = await migrated_database(small)
        async with open_mongo(uri) as mongo:
            feed = MongoChanges(mongo)
            async with reading(feed) as changes:
                await anext(changes)
                await MongoConfigs(mongo).create(config(slug="greet"), audit=noted)
                await anext(changes)
            with pymongo.MongoClient(uri) as client:
                seen, until = operation(client, pymongo.DESCENDING), time.monotonic() + 60
                while operation(client, pymongo.ASCENDING) <= seen:
                    assert time.monotonic() < until
                    client.other.texts.insert_many([{"text": "x" * 10_000} for _ in range(100)])
            async with reading(feed) as changes:
                with pytest.raises(StoreUnavailableError, match="MongoDB: "):
                    await anext(changes)
            async with reading(feed) as changes:
                assert await anext(changes) == AnythingChanged()


async def test_it_is_idle_for_longer_than_a_call_may_take() -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri, timeout_s=1) as mongo, reading(MongoChanges(mongo)) as changes:
        await anext(changes)
        asked = asyncio.ensure_future(anext(changes))
        await asyncio.wait([asked], timeout=2.5)
        await MongoConfigs(mongo).create(config(slug="late"), audit=noted)
        assert await asked == ConfigChanged("acme", "late")


async def test_a_reader_that_leaves_leaves_no_cursor() -> None:
    uri = await migrated_database(shared_mongo())
    async with open_mongo(uri) as mongo:
        feed = MongoChanges(mongo)

        async def read() -> None:
            async with reading(feed) as changes:
                async for _ in changes:
                    pass

        reader = asyncio.create_task(read())
        await asyncio.wait([reader], timeout=0.3)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
    with pymongo.MongoClient(uri) as client:
        asked = {"$match": {"ns": f"{client.get_default_database().name}.$cmd.aggregate", "cursor.tailable": True}}
        assert list(client.admin.aggregate([{"$currentOp": {"idleCursors": True}}, asked])) == []


async def test_without_a_schema_it_waits() -> None:
    uri = empty_database(shared_mongo())
    async with open_mongo(uri) as mongo:
        feed = MongoChanges(mongo)
        async with reading(feed) as changes:
            with pytest.raises(StoreUnavailableError, match="no schema"):
                await anext(changes)
        await migrate(uri)
        async with reading(feed) as changes:
            assert await anext(changes) == AnythingChanged()
