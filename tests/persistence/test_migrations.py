"""The embedded database's schema, from nothing to the newest."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, fields, replace
from decimal import Decimal
from pathlib import Path

import orjson
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine

from persistence.migrations.sqlite import HEAD, SchemaVersionError, current, migrate
from persistence.ports import StoreUnavailableError
from persistence.records import LedgerEntry, Outcome
from persistence.sqlite.times import milliseconds
from persistence.usage_records import UsageField, UsageSelection
from tests.persistence.embedded import open_sqlite_ledger
from tests.persistence.entries import at, entry
from tests.persistence.processes import run, start
from tests.persistence.usage_fold import folded

MIGRATE = """
import sys
from pathlib import Path
from persistence.migrations.sqlite import migrate
migrate(Path(sys.argv[1]))
"""


def test_from_nothing_and_once_more(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.db"
    assert current(path) is None
    migrate(path)
    before = path.read_bytes()
    migrate(path)
    assert (current(path), path.read_bytes()) == (HEAD, before)
    assert capfd.readouterr() == ("", "")


def test_an_empty_file_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    assert current(path) is None
    migrate(path)
    assert current(path) == HEAD


def test_two_processes_at_once(tmp_path: Path) -> None:
    children = [start(MIGRATE, tmp_path / "ledger.db") for _ in range(2)]
    ends = [(child.communicate(timeout=60)[1], child.returncode) for child in children]
    assert ends == [("", 0), ("", 0)]
    assert current(tmp_path / "ledger.db") == HEAD


def test_head_is_the_last_revision_and_revisions_sort() -> None:
    config = Config()
    config.set_main_option("script_location", "persistence:migrations/sqlite")
    scripts = ScriptDirectory.from_config(config)
    revisions = [script.revision for script in scripts.walk_revisions()]
    assert scripts.get_current_head() == HEAD
    assert revisions == sorted(revisions, reverse=True)


def test_the_table_has_the_entry_s_fields(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(ledger_entries)")]
    assert columns == [field.name for field in fields(LedgerEntry)]


def alembic(path: Path, order: Callable[[Config], None]) -> None:
    """What migrations do otherwise than by `migrate`."""
    config = Config()
    config.set_main_option("script_location", "persistence:migrations/sqlite")
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        order(config)


@pytest.mark.parametrize("revision", ["0001", "0002"])
async def test_an_older_ledger_keeps_its_entries_and_sums_them_up(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "ledger.db"
    alembic(path, lambda config: command.upgrade(config, revision))
    first = entry(outcome=Outcome.FAILED, cost=None, estimated=True, latency_ms=70, end_user="u", labels={"a": "b"})
    kept = [
        first,
        replace(first, attempt=2, outcome=Outcome.SUCCEEDED, time_to_first_token_ms=9, cost=Decimal("1E-28")),
        *(entry(time=at(number * 60_000), cost=Decimal(number) / 1000, config="c") for number in range(300)),
    ]
    with closing(sqlite3.connect(path)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(ledger_entries)")]
        for each in kept:
            values = asdict(each) | {
                "time": milliseconds(each.time),
                "cost": None if each.cost is None else str(each.cost),
                "labels": orjson.dumps(each.labels, option=orjson.OPT_INDENT_2).decode(),
            }
            row = [values[name] for name in names]
            connection.execute(f"INSERT INTO ledger_entries VALUES ({', '.join('?' for _ in row)})", row)
        connection.commit()
    migrate(path)
    asked = UsageSelection([(at(0), at(300 * 60_000))], [UsageField.OUTCOME, UsageField.CONFIG], max_groups=9)
    async with open_sqlite_ledger(path) as ledger:
        assert list(await ledger.completion("acme", first.completion_id)) == kept[:2]
        for _ in range(2):
            found = await ledger.usage("acme", asked)
            assert {each.group: each.sums for each in found} == {
                each.group: each.sums for each in folded(kept, "acme", asked)
            }
            await ledger.fold(at(10**9))


def test_a_migration_can_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    migrate(path)
    alembic(path, lambda config: command.downgrade(config, "base"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema WHERE type <> 'index'").fetchall() == [
            ("alembic_version",)
        ]
    migrate(path)
    assert current(path) == HEAD


def test_a_published_version_can_t_be_changed(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("INSERT INTO config_versions VALUES ('acme', 'cfg_1', 1, '{}', 0, 'key_1')")
        with pytest.raises(sqlite3.IntegrityError, match="never changes"):
            connection.execute("UPDATE config_versions SET content = '[]'")


def test_the_audit_log_is_only_added_to(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        event = "'aud_1', 'acme', 0, 'key_1', NULL, NULL, 'r', 'config.create', 'config', 'cfg_1', NULL, '{}'"
        connection.execute(f"INSERT INTO audit_events VALUES ({event})")
        with pytest.raises(sqlite3.IntegrityError, match="never changes"):
            connection.execute("UPDATE audit_events SET actor = 'another'")
        with pytest.raises(sqlite3.IntegrityError, match="stays"):
            connection.execute("DELETE FROM audit_events")


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(SchemaVersionError, match="newer release"):
        migrate(path)
    assert current(path) == "9999"


def test_a_failed_migration_leaves_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE ledger_by_time (x)")  # the first index's name is taken
    with pytest.raises(StoreUnavailableError, match="already"):
        migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("ledger_by_time",)]


def test_a_folder_that_is_not_there_and_a_file_that_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="nowhere"):
        migrate(tmp_path / "nowhere" / "ledger.db")
    (tmp_path / "ledger.db").write_text("not a database" * 100)
    with pytest.raises(StoreUnavailableError, match=r"ledger\.db"):
        migrate(tmp_path / "ledger.db")


def test_nothing_to_migrate_loads_no_sqlalchemy(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.db")
    code = MIGRATE + "print([name for name in ('sqlalchemy', 'alembic', 'mako') if name in sys.modules])"
    assert run(code, tmp_path / "ledger.db") == "[]\n"
