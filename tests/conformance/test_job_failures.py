"""What every JobFailures keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from persistence.migrations.sqlite import migrate
from persistence.mongo.client import open_mongo
from persistence.mongo.job_failures import MongoJobFailures
from persistence.ports import JobFailures
from persistence.queue_records import FAILURES_KEPT_FOR
from persistence.sqlite.database import open_database
from persistence.sqlite.job_failures import SQLiteJobFailures
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[JobFailures]]
NOW = datetime.now(UTC).replace(microsecond=0)
"""Of today: MongoDB forgets what is long ago by its own clock."""


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[JobFailures]:
    migrate(folder / "failures.db")
    async with open_database(folder / "failures.db") as database:
        yield SQLiteJobFailures(database)


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[JobFailures]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoJobFailures(mongo)


@pytest.fixture(params=[pytest.param(open_sqlite, id="sqlite"), pytest.param(open_mongodb, id="mongodb")])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobFailures]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def test_each_failure_is_one_more(store: JobFailures) -> None:
    name, other = uuid4().hex, uuid4().hex
    assert [await store.add(name, known=0, at=NOW) for _ in range(3)] == [1, 2, 3]
    assert await store.add(other, known=0, at=NOW) == 1


async def test_what_is_known_elsewhere_counts_too(store: JobFailures) -> None:
    """As where it was counted by another release, or was forgotten here."""
    name = uuid4().hex
    assert await store.add(name, known=3, at=NOW) == 4
    assert await store.add(name, known=0, at=NOW) == 5
    assert await store.add(name, known=9, at=NOW - timedelta(hours=1)) == 10


async def test_of_failures_at_once_each_is_counted(store: JobFailures) -> None:
    name = uuid4().hex
    counted = await asyncio.gather(*(store.add(name, known=0, at=NOW) for _ in range(20)))
    assert sorted(counted) == list(range(1, 21))


async def test_the_embedded_one_forgets_after_a_while(tmp_path: Path) -> None:
    migrate(tmp_path / "failures.db")
    async with open_database(tmp_path / "failures.db") as database:
        store = SQLiteJobFailures(database)
        await store.add("old", known=0, at=NOW)
        await store.add("young", known=0, at=NOW + timedelta(seconds=1))
        assert await store.add("young", known=0, at=NOW + FAILURES_KEPT_FOR + timedelta(milliseconds=1)) == 2
        assert await database.look_up("SELECT name FROM job_failures", {}) == [("young",)]


async def test_the_server_is_told_to_forget() -> None:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        indexes = await mongo.look_up(lambda database: database.job_failures.index_information())
        assert indexes["forgotten"]["expireAfterSeconds"] == FAILURES_KEPT_FOR.total_seconds()
        await MongoJobFailures(mongo).add("x", known=0, at=NOW)
        found = await mongo.look_up(lambda database: database.job_failures.find_one({}))
        assert found == {"_id": "x", "failures": 1, "failed_at": NOW}, "a time that it can go by"
