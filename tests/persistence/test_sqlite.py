"""The embedded ledger's own: its file, its failures, its threads."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from persistence.migrations.sqlite import SchemaVersionError, migrate
from persistence.ports import StoreUnavailableError
from persistence.records import CompletionFilter
from persistence.sqlite import database as sqlite_database
from persistence.sqlite import usage
from persistence.sqlite.ledger import SQLiteLedger
from tests.persistence.embedded import open_sqlite_ledger
from tests.persistence.entries import at, entry
from tests.persistence.processes import kill_at_first_line, largest_file
from tests.persistence.usage_fold import usage_totals

EVER = {"since": at(-1000), "until": at(1000)}


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a folder %23" / "ledger.db"
    path.parent.mkdir()
    migrate(path)
    return path


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SQLiteLedger]:
    async with open_sqlite_ledger(path, busy_timeout_s=0.01) as ledger:
        yield ledger


async def attempts(ledger: SQLiteLedger) -> int:
    return (await usage_totals(ledger, "acme", **EVER)).attempts


async def test_a_full_disk_loses_nothing_and_ends_nothing(ledger: SQLiteLedger, path: Path) -> None:
    await ledger.append([entry()])
    log = path.with_name("ledger.db-wal")
    with largest_file(log.stat().st_size + 20_000):
        with pytest.raises(StoreUnavailableError, match=r"ledger\.db"):
            await ledger.append([entry(labels={"long": "x" * 500}) for _ in range(200)])
        assert await attempts(ledger) == 1
    await ledger.append([entry()])
    assert await attempts(ledger) == 2


async def test_a_lock_held_elsewhere_is_told_and_passes(ledger: SQLiteLedger, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await ledger.append([entry()])
        assert await attempts(ledger) == 0  # reads go on
        other.execute("ROLLBACK")
    await ledger.append([entry()])
    assert await attempts(ledger) == 1


@pytest.mark.parametrize("others", [1, 150])
async def test_a_transaction_that_fails_midway_leaves_nothing(ledger: SQLiteLedger, path: Path, others: int) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER poison BEFORE INSERT ON ledger_entries WHEN NEW.model = 'poison'"
            " BEGIN SELECT RAISE(ABORT, 'poisoned'); END"
        )
    with pytest.raises(ValueError, match="poisoned"):
        await ledger.append([*(entry() for _ in range(others)), entry(model="poison"), entry()])
    assert await attempts(ledger) == 0
    await ledger.append([entry()])
    assert await attempts(ledger) == 1


async def test_a_broken_file_is_told(ledger: SQLiteLedger, path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE ledger_entries")
    for call in (
        ledger.append([entry()]),
        ledger.completion("acme", "cmp_1"),
        ledger.completion_by_key("acme", "k"),
        ledger.completions("acme", where=CompletionFilter(), limit=1),
        usage_totals(ledger, "acme", **EVER),
    ):
        with pytest.raises(StoreUnavailableError, match="no such table"):
            await call


async def test_more_readers_than_connections(ledger: SQLiteLedger) -> None:
    await ledger.append([entry()])
    assert await asyncio.gather(*(attempts(ledger) for _ in range(30))) == [1] * 30


async def test_a_read_that_takes_too_long_is_broken_off(ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    await ledger.append([entry() for _ in range(2000)])
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_database, "READ_TIMEOUT_S", -1.0)
        with pytest.raises(StoreUnavailableError, match="interrupted"):
            await attempts(ledger)
    assert await attempts(ledger) == 2000


async def test_long_reports_hold_up_neither_a_look_up_nor_the_close(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "statement", lambda *_: (ENDLESS, {}))
    async with asyncio.timeout(sqlite_database.READ_TIMEOUT_S - 5):
        async with open_sqlite_ledger(path) as ledger:
            await ledger.append([entry(completion_id="cmp_1")])
            reports = [asyncio.ensure_future(attempts(ledger)) for _ in range(3 * sqlite_database.REPORT_READERS)]
            assert len(await ledger.completion(entry().organisation, "cmp_1")) == 1
            assert not any(report.done() for report in reports)
        for report in reports:
            with pytest.raises(StoreUnavailableError, match="interrupted"):
                await report


async def test_a_report_ends_with_its_caller(ledger: SQLiteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    await ledger.append([entry()])
    with monkeypatch.context() as patch:
        patch.setattr(usage, "statement", lambda *_: (ENDLESS, {}))
        reports = [asyncio.ensure_future(attempts(ledger)) for _ in range(3 * sqlite_database.REPORT_READERS)]
        await asyncio.sleep(0)  # they are handed over
    for report in reports:
        report.cancel()
    async with asyncio.timeout(sqlite_database.READ_TIMEOUT_S - 5):
        assert await attempts(ledger) == 1


async def test_a_cancelled_caller_does_not_take_the_commit_along(ledger: SQLiteLedger) -> None:
    waiting = asyncio.ensure_future(ledger.append([entry()]))
    await asyncio.sleep(0)  # it has handed its entry over
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ledger.append([entry()])
    assert await attempts(ledger) == 2


async def test_a_closed_ledger_says_so(path: Path) -> None:
    async with open_sqlite_ledger(path) as ledger:
        pass
    with pytest.raises(StoreUnavailableError, match="closed"):
        await ledger.append([entry()])
    with pytest.raises(StoreUnavailableError, match="closed"):
        await ledger.completion("acme", "cmp_1")


async def test_what_was_handed_over_is_written_before_it_closes(path: Path) -> None:
    async with open_sqlite_ledger(path) as ledger:
        waiting = [asyncio.ensure_future(ledger.append([entry()])) for _ in range(20)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    async with open_sqlite_ledger(path) as ledger:
        assert await attempts(ledger) == 20


APPEND_AND_HANG = """
import asyncio, sys
from pathlib import Path
from tests.persistence.embedded import open_sqlite_ledger
from tests.persistence.usage_fold import usage_totals
from tests.persistence.entries import entry

async def main():
    async with open_sqlite_ledger(Path(sys.argv[1])) as ledger:
        await ledger.append([entry(completion_id="cmp_1")])
        print("committed", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_is_committed_outlives_a_kill(path: Path) -> None:
    assert kill_at_first_line(APPEND_AND_HANG, path) == "committed"
    async with open_sqlite_ledger(path) as ledger:
        [found] = await ledger.completion("acme", "cmp_1")
        assert found == entry(completion_id="cmp_1")


async def test_a_missing_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaVersionError, match="migrate it first"):
        async with open_sqlite_ledger(tmp_path / "ledger.db"):
            pass
    assert not (tmp_path / "ledger.db").exists()


@pytest.mark.parametrize(("revision", "advice"), [("0000", "migrate it first"), ("9999", "newer release")])
async def test_a_schema_of_another_release_is_refused(path: Path, revision: str, advice: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        other.commit()
    with pytest.raises(SchemaVersionError, match=f"{revision}.*{advice}"):
        async with open_sqlite_ledger(path):
            pass


async def test_commits_are_durable_and_the_file_is_private(ledger: SQLiteLedger, path: Path) -> None:
    await ledger.append([entry()])
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("ledger.db*")} == {0o600}
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
