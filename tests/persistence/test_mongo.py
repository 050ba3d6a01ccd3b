"""Configs and price rules on a real MongoDB: its schema, and what they say and do when the server is away."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pymongo
import pytest
from pymongo.errors import WriteError

from persistence.audit_records import AuditFilter
from persistence.batch_records import OPEN, BatchFilter, BatchState, ItemState
from persistence.config_records import ConfigCursor, ConfigFilter, ConfigOrder
from persistence.mongo import client as module
from persistence.mongo.address import check_address
from persistence.mongo.audit import MongoAuditLog
from persistence.mongo.batches import MongoBatches
from persistence.mongo.client import Mongo, open_mongo
from persistence.mongo.configs import MongoConfigs
from persistence.mongo.prices import MongoPrices
from persistence.ports import StoreConflictError, StoreUnavailableError
from persistence.price_records import Override, PriceFilter
from tests.persistence.audit import audit_event, noted
from tests.persistence.batches import batch, item, move
from tests.persistence.configs import CONTENT, config
from tests.persistence.entries import NOON, at
from tests.persistence.prices import price_rule
from tests.servers.mongo import Mongo as Server
from tests.servers.mongo import migrated_database, running_mongo, shared_mongo
from tests.servers.proxy import proxy_to


@pytest.fixture
async def uri() -> str:
    return await migrated_database(shared_mongo())


@pytest.fixture
def database(uri: str) -> Iterator[pymongo.database.Database[dict[str, Any]]]:
    """The same, as its operator sees it."""
    with pymongo.MongoClient(uri) as client:
        yield client.get_default_database()


async def test_every_query_goes_by_an_index_that_begins_with_the_organisation(uri: str, database: Any) -> None:
    async with open_mongo(uri) as mongo:
        configs, prices, log = MongoConfigs(mongo), MongoPrices(mongo), MongoAuditLog(mongo)
        made, rule = config(), price_rule()
        database.command("profile", 2)
        await configs.create(made, audit=noted)
        await configs.by_id("acme", made.id)
        await configs.by_slug("acme", made.slug)
        await configs.publish_draft("acme", made.id, expected_revision=1, at=at(1), by="x", audit=noted)
        await configs.save_draft("acme", made.id, CONTENT, expected_revision=2, at=at(2), audit=noted)
        await configs.versions("acme", made.id, limit=5, before=9)
        for order in ConfigOrder:
            after = ConfigCursor("a", at(9))
            await configs.page("acme", where=ConfigFilter(search="x"), order=order, limit=5, after=after)
        await prices.add(rule, at_most=9, audit=noted)
        await prices.unended("acme", since=NOON)
        await prices.page("acme", where=PriceFilter(active_at=NOON), limit=5, before="z")
        await prices.end("acme", rule.id, at(9), now=NOON, audit=noted)
        await log.append(audit_event())
        for where in (AuditFilter(), AuditFilter(action="a"), AuditFilter(subject_id="s"), AuditFilter(actor="a")):
            await log.page("acme", where=replace(where, since=NOON, until=at(9)), limit=5, before="aud_f")
        await _batch_queries(MongoBatches(mongo))
        database.command("profile", 0)
    plans = [each["planSummary"] for each in database.system.profile.find({"planSummary": {"$exists": True}})]
    assert len(plans) >= 30
    indexed = re.compile(r"(IXSCAN \{ (_id: -?1|_id\.organisation: 1).*\}(, )?)+|IDHACK")
    assert [plan for plan in plans if indexed.fullmatch(plan) is None] == []


async def _batch_queries(batches: MongoBatches) -> None:
    made = batch(idempotency_key="k")
    await batches.begin(made)
    await batches.add([item(made, index) for index in range(3)])
    await batches.open(made, at_most=9, audit=noted)
    await batches.by_key("acme", "k")
    await batches.page("acme", where=BatchFilter((BatchState.RUNNING,)), limit=5, before="z")
    await batches.active(limit=5, after=("acme", "a"))
    await batches.unopened(before=NOON, limit=5)
    await batches.move([move(made, 0, ItemState.WAITING, ItemState.RUNNING, claims=True, vendor_run=1, due=NOON)])
    for states in ((), (ItemState.RUNNING,)):
        await batches.items("acme", made.id, states=states, limit=5, after=0)
    await batches.due("acme", made.id, states=OPEN, now=NOON, limit=5)
    await batches.of_vendor_run("acme", made.id, 1)
    await batches.vendor_runs("acme", made.id)
    await batches.change("acme", made.id, expects=(BatchState.RUNNING,), values={"priority": 1}, audit=noted)
    await batches.lead("dispatcher", "me", now=NOON, until=at(9))


@pytest.mark.parametrize(
    "wrong",
    [
        {"_id": "not an organisation's"},
        {"_id": {"organisation": "acme", "slug": "s", "more": 1}},
        {"revision": 0},
        {"revision": "1"},
        {"created_at": "2026-01-01"},
        {"draft": {"model": "a/b"}},
        {"labels": [{"name": "a"}]},
    ],
)
async def test_the_server_refuses_what_is_no_config(uri: str, database: Any, wrong: dict[str, Any]) -> None:
    async with open_mongo(uri) as mongo:
        await MongoConfigs(mongo).create(config(slug="one"), audit=noted)
    document = database.configs.find_one()
    with pytest.raises(WriteError):
        database.configs.insert_one({**document, "_id": {"organisation": "acme", "slug": "two"}, "id": "x", **wrong})


async def test_money_is_exact_where_it_is_kept(uri: str, database: Any) -> None:
    async with open_mongo(uri) as mongo:
        prices = MongoPrices(mongo)
        await prices.add(price_rule(terms=Override(Decimal("0.10"), Decimal("1E-6"))), at_most=9, audit=noted)
        with pytest.raises(ValueError, match="34 digits"):
            await prices.add(price_rule(terms=Override(Decimal("0." + "1" * 35), Decimal(0))), at_most=9, audit=noted)
    [rule] = database.price_rules.find()
    assert {name: str(amount) for name, amount in rule["terms"].items()} == {"input": "0.10", "output": "0.000001"}
    assert database.price_rules.count_documents({"terms.input": {"$type": "decimal"}}) == 1


async def test_what_the_server_can_t_hold_is_told_without_it(uri: str) -> None:
    async with open_mongo(uri) as mongo:
        with pytest.raises(ValueError, match="can't hold this") as caught:
            await MongoConfigs(mongo).create(config(revision=0, slug="secret"), audit=noted)
        with pytest.raises(ValueError, match="can't hold this"):
            await MongoConfigs(mongo).create(config(slug="x" * 17_000_000), audit=noted)
        with pytest.raises(ValueError, match="has the id"):
            await asyncio.gather(*(MongoConfigs(mongo).create(config(id="cfg_1"), audit=noted) for _ in range(2)))
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__, "a printed chain would show the document"


async def test_publishing_writes_both_or_nothing(uri: str, database: Any) -> None:
    """A version of that number is there already: no program of ours put it there."""
    async with open_mongo(uri) as mongo:
        configs, made = MongoConfigs(mongo), config()
        await configs.create(made, audit=noted)
        key = {"organisation": "acme", "config_id": made.id, "number": 1}
        database.config_versions.insert_one({"_id": key, "content": "{}", "created_at": NOON, "created_by": "x"})
        with pytest.raises(StoreUnavailableError, match="DuplicateKey"):
            await configs.publish_draft("acme", made.id, expected_revision=1, at=at(1), by="key_1", audit=noted)
        assert await configs.by_id("acme", made.id) == made


@pytest.mark.parametrize(
    "address",
    [
        "db.internal/x",
        "http://u:hunter2hunter2@h/x",
        "mongodb://u:hunter2hunter2@/x",
        "mongodb://u:hunter2@hunter2@h/x",
        "mongodb://u:hunter2/hunter2@h/x",
        "mongodb://u:hunter2?hunter2@h/x",
        "mongodb://u:hunter2hunter2@h:port/x",
        "mongodb://u:hunter2hunter2@h:1,/x",
    ],
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ValueError, match=r"^is not an address such as") as raised:
        check_address(address)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [
        "mongodb://h",
        "mongodb://u:p%40ss@h:27017,h2:27018,h3/db?replicaSet=rs0&authSource=admin",
        "mongodb+srv://u:p@cluster.example.net/?retryWrites=true",
        "mongodb://127.0.0.1:27017/?directConnection=true",
        "mongodb://u:p@[::1]:27017,[2001:db8::7]/db?replicaSet=rs0",
    ],
)
def test_an_address(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize("options", ["no=such", "tls=hunter2", "w=1&hunter2", "replicaSet"])
async def test_options_that_are_none(options: str) -> None:
    with pytest.raises(ValueError, match="look at its options") as raised:
        async with open_mongo(f"mongodb://u:hunter2@127.0.0.1:1/x?{options}"):
            pass
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_mongo() as started:
        yield started


async def back(mongo: Mongo) -> None:
    """Returns when it has found its server again."""
    await mongo.report(lambda database: database.command("ping"))


async def test_a_restart_is_not_noticed_and_an_outage_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_UP_TIMEOUT_S", 0.5)
    monkeypatch.setattr(module, "LOOK_TIMEOUT_S", 0.5)
    [node] = server.nodes
    async with open_mongo(await migrated_database(server), timeout_s=10) as mongo:
        configs, made = MongoConfigs(mongo), config()
        await configs.create(made, audit=noted)
        node.stop()
        writing = asyncio.create_task(
            configs.save_draft("acme", made.id, CONTENT, expected_revision=1, at=at(1), audit=noted)
        )
        await asyncio.to_thread(server.restart, node)
        assert (await writing).revision == 2
        node.kill()
        async with asyncio.timeout(module.LOOK_UP_TIMEOUT_S + 2):
            with pytest.raises(StoreUnavailableError, match=r"no primary can be reached|AutoReconnect"):
                await configs.by_id("acme", made.id)
        async with asyncio.timeout(0.1):
            with pytest.raises(StoreUnavailableError, match="a moment ago"):
                await configs.by_id("acme", made.id)
        assert await mongo.look() in ("MongoDB: no primary can be reached", "MongoDB: AutoReconnect")
        await asyncio.to_thread(server.restart, node)
        await back(mongo)
        assert (await configs.by_id("acme", made.id)).revision == 2


async def test_a_server_that_answers_nothing_is_given_up_in_time(server: Server) -> None:
    [node] = server.nodes
    async with open_mongo(await migrated_database(server), timeout_s=1) as mongo:
        configs, prices, made = MongoConfigs(mongo), MongoPrices(mongo), config()
        await configs.create(made, audit=noted)
        with node.frozen():
            async with asyncio.timeout(20):
                tries = await asyncio.gather(
                    configs.by_slug("acme", made.slug),
                    configs.save_draft("acme", made.id, CONTENT, expected_revision=1, at=at(1), audit=noted),
                    configs.publish_draft("acme", made.id, expected_revision=1, at=at(1), by="x", audit=noted),
                    prices.add(price_rule(), at_most=5, audit=noted),
                    mongo.look(),
                    return_exceptions=True,
                )
        assert {type(each) for each in tries[:4]} == {StoreUnavailableError}
        assert "MongoDB: " in str(tries[4])
        await back(mongo)
        standing = await configs.by_id("acme", made.id)
        assert standing.revision in (1, 2), "one of the two writes may have come through, or neither"
        assert len(await configs.versions("acme", made.id, limit=5)) == (standing.published or 0)


async def repeated(writes: MongoConfigs, made: Any, number: int) -> int:
    """Saves a draft until it is there; how often the store said that it did not know."""
    unknown = 0
    while True:
        standing = await writes.by_id("acme", made.id)
        if standing.draft.description == str(number):
            return unknown
        draft = CONTENT.__class__(model="a/b", description=str(number))
        try:
            await writes.save_draft(
                "acme", made.id, draft, expected_revision=standing.revision, at=at(number), audit=noted
            )
        except StoreUnavailableError:
            unknown += 1


async def test_connections_that_are_cut_while_it_writes(server: Server) -> None:
    """Each write is done once: the driver sends what was cut off anew, and the server knows it again."""
    database = await migrated_database(server)
    [node] = server.nodes
    async with proxy_to(node.port) as proxy:
        address = f"mongodb://127.0.0.1:{proxy.port}/{database.split('/')[3].split('?')[0]}?directConnection=true"
        async with open_mongo(address) as mongo:
            configs, made = MongoConfigs(mongo), config()
            await configs.create(made, audit=noted)
            written, done = asyncio.Event(), asyncio.Event()

            async def cut() -> None:
                while not done.is_set():
                    await written.wait()
                    written.clear()
                    await proxy.cut()

            async def write() -> None:
                for number in range(30):
                    standing = await configs.by_id("acme", made.id)
                    written.set()
                    if number % 2:
                        await configs.publish_draft(
                            "acme", made.id, expected_revision=standing.revision, at=at(number), by="x", audit=noted
                        )
                    else:
                        assert await repeated(configs, made, number) == 0
                done.set()
                written.set()

            async with asyncio.timeout(60):
                await asyncio.gather(cut(), write())
            standing = await configs.by_id("acme", made.id)
            assert (standing.revision, standing.published) == (31, 15)
            assert [each.number for each in await configs.versions("acme", made.id, limit=99)] == [*range(15, 0, -1)]
        assert proxy.opened > 15


async def test_a_caller_that_leaves_leaves_no_half_of_its_write(uri: str) -> None:
    async with open_mongo(uri) as mongo:
        configs, made = MongoConfigs(mongo), config()
        await configs.create(made, audit=noted)
        publishing = asyncio.create_task(
            configs.publish_draft("acme", made.id, expected_revision=1, at=at(1), by="key_1", audit=noted)
        )
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
    async with open_mongo(uri) as mongo:
        configs = MongoConfigs(mongo)
        assert (await configs.by_id("acme", made.id)).published == 1
        assert [each.number for each in await configs.versions("acme", made.id, limit=5)] == [1]


async def test_a_closed_one_says_so(uri: str) -> None:
    async with open_mongo(uri) as mongo:
        pass
    with pytest.raises(StoreUnavailableError):
        await MongoConfigs(mongo).by_id("acme", "x")
    with pytest.raises(StoreUnavailableError):
        await MongoPrices(mongo).add(price_rule(), at_most=3, audit=noted)


async def test_of_rules_added_by_two_processes_no_more_than_may_be(uri: str) -> None:
    async with open_mongo(uri) as one, open_mongo(uri) as other:
        stores = [MongoPrices(one), MongoPrices(other)]
        tries = await asyncio.gather(
            *(stores[n % 2].add(price_rule(), at_most=5, audit=noted) for n in range(20)), return_exceptions=True
        )
        assert sum(isinstance(each, StoreConflictError) for each in tries) == 15
        assert len(await stores[0].unended("acme", since=NOON)) == 5
