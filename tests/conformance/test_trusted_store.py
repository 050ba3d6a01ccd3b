"""What every TrustedDocumentStore keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from persistence.migrations.sqlite import migrate
from persistence.mongo.client import open_mongo
from persistence.mongo.trusted import MongoTrustedDocuments
from persistence.ports import TrustedDocumentStore
from persistence.sqlite.database import open_database
from persistence.sqlite.trusted import SQLiteTrustedDocuments
from resolvers.trusted_documents import hash_of
from tests.persistence.entries import at
from tests.persistence.trusted import MemoryTrustedDocuments, trusted_document
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[TrustedDocumentStore]]


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[TrustedDocumentStore]:
    migrate(folder / "trusted.db")
    async with open_database(folder / "trusted.db") as database:
        yield SQLiteTrustedDocuments(database)


@asynccontextmanager
async def open_memory(_: Path) -> AsyncIterator[TrustedDocumentStore]:
    yield MemoryTrustedDocuments()


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[TrustedDocumentStore]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoTrustedDocuments(mongo)


@pytest.fixture(
    params=[
        pytest.param(open_sqlite, id="sqlite"),
        pytest.param(open_mongodb, id="mongodb"),
        pytest.param(open_memory, id="memory"),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TrustedDocumentStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def test_a_document_is_found_by_its_hash_as_it_was(store: TrustedDocumentStore) -> None:
    whole = trusted_document('query Ü { config(by: { slug: "é 🔑" }) { id } }\r\n', name="Ü, (unnamed)")
    assert await store.text(whole.sha256) is None
    assert await store.register([whole]) == 1
    assert await store.text(whole.sha256) == whole.text
    assert await store.page(limit=10) == [whole]
    assert await store.text(hash_of("another")) is None


async def test_what_is_there_stays_as_it_is(store: TrustedDocumentStore) -> None:
    first, second = trusted_document("{ a }"), trusted_document("{ b }")
    assert await store.register([]) == 0
    assert await store.register([first]) == 1
    later = trusted_document("{ a }", name="Other", registered_at=at(1))
    assert await store.register([later, second]) == 1
    assert await store.register([later, second]) == 0
    assert {each.sha256: each for each in await store.page(limit=10)} == {
        first.sha256: first,
        second.sha256: second,
    }


async def test_the_same_ones_registered_twice_at_once_are_there_once(store: TrustedDocumentStore) -> None:
    documents = [trusted_document(f"{{ a{number} }}") for number in range(20)]
    added = await asyncio.gather(*(store.register(documents) for _ in range(3)))
    assert sum(added) == 20
    assert len(await store.page(limit=100)) == 20


async def test_one_that_can_not_be_stored_keeps_the_others_out(store: TrustedDocumentStore) -> None:
    broken = trusted_document("{ b }", registered_at=at(1).replace(microsecond=1))
    with pytest.raises(ValueError, match="whole milliseconds"):
        await store.register([trusted_document("{ a }"), broken])
    assert await store.page(limit=10) == []


async def test_one_that_is_removed_is_gone(store: TrustedDocumentStore) -> None:
    first, second = trusted_document("{ a }"), trusted_document("{ b }")
    await store.register([first, second])
    assert await store.remove(first.sha256)
    assert not await store.remove(first.sha256)
    assert await store.text(first.sha256) is None
    assert await store.page(limit=10) == [second]


async def test_pages_go_by_hash_and_leave_none_out(store: TrustedDocumentStore) -> None:
    documents = sorted((trusted_document(f"{{ a{number} }}") for number in range(7)), key=lambda each: each.sha256)
    await store.register(documents)
    found = []
    while page := await store.page(limit=3, after=found[-1].sha256 if found else None):
        found.extend(page)
    assert found == documents
    with pytest.raises(ValueError, match="at least 1"):
        await store.page(limit=0)
