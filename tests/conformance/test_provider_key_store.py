"""What every ProviderKeyStore keeps to, embedded or server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from persistence.migrations.sqlite import migrate
from persistence.mongo.client import open_mongo
from persistence.mongo.provider_keys import MongoProviderKeys
from persistence.ports import ProviderKeyStore
from persistence.sqlite.database import open_database
from persistence.sqlite.provider_keys import SQLiteProviderKeys
from tests.persistence.audit import noted
from tests.persistence.entries import NOON, at
from tests.persistence.provider_keys import MemoryProviderKeys, provider_key
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[ProviderKeyStore]]


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[ProviderKeyStore]:
    migrate(folder / "keys.db")
    async with open_database(folder / "keys.db") as database:
        yield SQLiteProviderKeys(database)


@asynccontextmanager
async def open_memory(_: Path) -> AsyncIterator[ProviderKeyStore]:
    yield MemoryProviderKeys()


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[ProviderKeyStore]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoProviderKeys(mongo)


@pytest.fixture(
    params=[
        pytest.param(open_sqlite, id="sqlite"),
        pytest.param(open_mongodb, id="mongodb"),
        pytest.param(open_memory, id="memory"),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ProviderKeyStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def test_a_key_is_found_as_it_was_and_a_later_one_takes_its_place(store: ProviderKeyStore) -> None:
    one, other = provider_key(), provider_key(provider="anthropic", created_by="é 🔑")
    await store.put(one, audit=noted)
    await store.put(other, audit=noted)
    assert await store.of("acme") == [other, one]
    later = replace(one, sealed="env:v1:bmV3", hint="wxyz", created_at=at(1), created_by="x")
    await store.put(later, audit=noted)
    assert await store.of("acme") == [other, later]


async def test_another_organisation_has_none_of_it(store: ProviderKeyStore) -> None:
    await store.put(provider_key(), audit=noted)
    assert await store.of("globex") == []
    assert not await store.delete("globex", "openai", audit=noted)
    assert not await store.reseal(provider_key(organisation="globex"), "x")
    assert await store.of("acme") == [provider_key()]


async def test_what_is_deleted_is_gone(store: ProviderKeyStore) -> None:
    await store.put(provider_key(), audit=noted)
    await store.put(provider_key(provider="groq"), audit=noted)
    assert await store.delete("acme", "openai", audit=noted)
    assert not await store.delete("acme", "openai", audit=noted)
    assert await store.of("acme") == [provider_key(provider="groq")]


async def test_every_key_by_pages(store: ProviderKeyStore) -> None:
    keys = [
        provider_key(organisation=organisation, provider=provider)
        for organisation in ("acme", "globex", "{x}")
        for provider in ("anthropic", "openai")
    ]
    for key in reversed(keys):
        await store.put(key, audit=noted)
    first = await store.every(limit=4)
    rest = await store.every(limit=4, after=(first[-1].organisation, first[-1].provider))
    assert [*first, *rest] == keys
    assert await store.every(limit=4, after=("{x}", "openai")) == []
    with pytest.raises(ValueError, match="limit"):
        await store.every(limit=0)


async def test_only_what_stands_is_sealed_anew(store: ProviderKeyStore) -> None:
    old = provider_key()
    await store.put(old, audit=noted)
    assert await store.reseal(old, "env:v1:YW5ldw==")
    assert not await store.reseal(old, "env:v1:dG9vIGxhdGU=")
    assert await store.of("acme") == [replace(old, sealed="env:v1:YW5ldw==")]


async def test_times_are_whole_milliseconds(store: ProviderKeyStore) -> None:
    if isinstance(store, MemoryProviderKeys):
        return
    with pytest.raises(ValueError, match="time"):
        await store.put(provider_key(created_at=NOON + timedelta(microseconds=1)), audit=noted)
    assert await store.of("acme") == []
