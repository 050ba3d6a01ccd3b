"""Folding beside the server: in steps, exact at any moment, whoever folds and whatever comes meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from persistence.migrations.sqlite import migrate
from persistence.records import LedgerEntry
from persistence.sqlite import folding, ledger
from persistence.sqlite.database import Database, open_database
from persistence.sqlite.folding import Folding
from persistence.sqlite.ledger import SQLiteLedger
from persistence.usage_records import UsageField, UsageSelection
from tests.persistence.entries import entry
from tests.persistence.usage_fold import folded

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LATER = MIDNIGHT + 30 * DAY
ASKED = UsageSelection(
    list(pairwise(MIDNIGHT + number * DAY for number in range(4))), [UsageField.PRINCIPAL], max_groups=1000
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "ledger.db")
    return tmp_path / "ledger.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with open_database(path) as database:
        yield database


@pytest.fixture
def store(database: Database) -> SQLiteLedger:
    return SQLiteLedger(database)


def still_open(path: Path) -> list[tuple[int, ...]]:
    with closing(sqlite3.connect(path)) as other:
        return other.execute("SELECT period FROM usage_open UNION ALL SELECT day FROM usage_open_days").fetchall()


def some(count: int, random: Random, callers: int) -> list[LedgerEntry]:
    return [
        entry(
            time=MIDNIGHT + timedelta(minutes=random.randrange(30 * 60)),
            principal=f"key_{random.randrange(callers)}",
            latency_ms=random.randrange(5000),
        )
        for _ in range(count)
    ]


async def agrees(store: SQLiteLedger, booked: list[LedgerEntry]) -> None:
    found = await store.usage("acme", ASKED)
    expected = folded(booked, "acme", ASKED)
    assert {(cell.span, cell.group): cell.sums for cell in found} == {
        (cell.span, cell.group): cell.sums for cell in expected
    }


@pytest.mark.parametrize("folders", [1, 3])
@pytest.mark.parametrize("seed", range(3))
async def test_reports_are_exact_while_it_folds_and_entries_come(
    database: Database, store: SQLiteLedger, path: Path, monkeypatch: pytest.MonkeyPatch, folders: int, seed: int
) -> None:
    monkeypatch.setattr(folding, "_STEP", 4)  # many steps, between which anything may happen
    random = Random(seed)
    booked = some(60, random, 5)
    await store.append(booked)
    running = [asyncio.create_task(Folding(database, rest=0).fold(LATER)) for _ in range(folders)]
    while not all(each.done() for each in running):
        more = some(1, random, 6)
        await store.append(more)
        booked += more
        await agrees(store, booked)
    await asyncio.gather(*running)
    await store.fold(LATER)
    assert still_open(path) == []
    await agrees(store, booked)


async def test_an_entry_does_not_wait_for_it(database: Database, store: SQLiteLedger, path: Path) -> None:
    await store.append([entry(time=MIDNIGHT, principal=f"key_{number}") for number in range(2000)])
    running = asyncio.create_task(Folding(database, rest=0).fold(LATER))
    for _ in range(5):
        await store.append([entry(time=LATER)])
        assert not running.done()
    await running
    assert still_open(path) == [(int((LATER).timestamp() * 1000),)]


async def test_a_late_entry_is_folded_by_what_it_changes_alone(
    database: Database, store: SQLiteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    booked = [entry(time=MIDNIGHT, principal=f"key_{number}") for number in range(500)]
    await store.append(booked)
    await store.fold(LATER)
    late = entry(time=MIDNIGHT, principal="key_7")
    await store.append([late])
    put: list[int] = []
    plain = folding._Claim.put
    monkeypatch.setattr(
        folding._Claim, "put", lambda claim, connection, rows: put.append(len(rows)) or plain(claim, connection, rows)
    )
    await store.fold(LATER)
    assert sum(put) == 7, "one cell of each tier"
    await agrees(store, [*booked, late])


async def test_what_an_earlier_process_left_open_is_folded_without_an_entry(
    database: Database, store: SQLiteLedger, path: Path
) -> None:
    await store.append([entry(time=MIDNIGHT), entry(time=MIDNIGHT + DAY)])
    with closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO usage_claims VALUES ('acme', ?, 0, 7)", (int(MIDNIGHT.timestamp() * 1000),))
        other.commit()
    async with asyncio.timeout(30), ledger.open_sqlite_ledger(database):
        while still_open(path):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    assert "usage-folding" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_what_cannot_be_folded_keeps_nothing_else_from_it(
    database: Database, store: SQLiteLedger, path: Path
) -> None:
    booked = [entry(time=MIDNIGHT), entry(time=MIDNIGHT + DAY)]
    await store.append(booked)
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            f"CREATE TRIGGER poison BEFORE DELETE ON usage_open WHEN OLD.period = {int(MIDNIGHT.timestamp() * 1000)} "
            "BEGIN SELECT RAISE(ABORT, 'it stays open'); END"
        )
    await Folding(database, rest=0).fold(LATER)
    assert still_open(path) == [(int(MIDNIGHT.timestamp() * 1000),)]
    await agrees(store, booked)


def test_a_process_can_end_while_it_folds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()
    plain = folding.cell_of
    monkeypatch.setattr(folding, "cell_of", lambda row: begun.set() or plain(row))

    async def run() -> float:
        async with open_database(path) as database:
            store = SQLiteLedger(database)
            await store.append([entry(time=MIDNIGHT, principal=f"key_{number}") for number in range(2000)])
            running = asyncio.create_task(Folding(database, rest=1000).fold(LATER))  # for minutes
            await asyncio.to_thread(begun.wait)
            running.cancel()
            return time.monotonic()

    assert time.monotonic() - asyncio.run(run()) < 10
