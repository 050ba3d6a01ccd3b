"""What every LimitStore keeps to, embedded or server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from persistence.limit_records import Limited
from persistence.migrations.sqlite import migrate
from persistence.mongo.client import open_mongo
from persistence.mongo.limits import MongoLimits
from persistence.ports import LimitStore
from persistence.sqlite.database import open_database
from persistence.sqlite.limits import SQLiteLimits
from tests.persistence.audit import noted
from tests.persistence.entries import at
from tests.persistence.limits import MemoryLimits, limit_rule
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[LimitStore]]


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[LimitStore]:
    migrate(folder / "limits.db")
    async with open_database(folder / "limits.db") as database:
        yield SQLiteLimits(database)


@asynccontextmanager
async def open_memory(_: Path) -> AsyncIterator[LimitStore]:
    yield MemoryLimits()


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[LimitStore]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoLimits(mongo)


@pytest.fixture(
    params=[
        pytest.param(open_sqlite, id="sqlite"),
        pytest.param(open_mongodb, id="mongodb"),
        pytest.param(open_memory, id="memory"),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LimitStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def test_a_rule_is_found_as_it_was_and_a_later_one_takes_its_place(store: LimitStore) -> None:
    whole = limit_rule(usd_per_month=Decimal("8999999.123456789"), tokens_per_minute=2**52, updated_by="é 🔑")
    model = limit_rule(limited=Limited.MODEL, name="openai/gpt-4o", requests_per_minute=0, usd_per_day=None)
    key = limit_rule(limited=Limited.API_KEY, name="key_1", streams=None)
    for rule in (whole, model, key):
        await store.put(rule, audit=noted)
    assert await store.of("acme") == [key, model, whole]
    later = replace(whole, requests_per_minute=None, usd_per_day=Decimal(1), updated_at=at(1), updated_by="x")
    await store.put(later, audit=noted)
    assert await store.of("acme") == [key, model, later]


async def test_another_organisation_has_none_of_it(store: LimitStore) -> None:
    await store.put(limit_rule(), audit=noted)
    assert await store.of("globex") == []
    assert not await store.delete("globex", Limited.ORGANISATION, "", audit=noted)
    assert await store.of("acme") == [limit_rule()]


async def test_what_is_removed_is_gone(store: LimitStore) -> None:
    rule = limit_rule(limited=Limited.MODEL, name="openai/*")
    await store.put(limit_rule(), audit=noted)
    await store.put(rule, audit=noted)
    assert await store.delete("acme", Limited.MODEL, "openai/*", audit=noted)
    assert not await store.delete("acme", Limited.MODEL, "openai/*", audit=noted)
    assert await store.of("acme") == [limit_rule()]
