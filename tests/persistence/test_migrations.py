"""The embedded database's schema, from nothing to the newest."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from persistence.migrations.sqlite import HEAD, SchemaVersionError, current, migrate
from persistence.ports import StoreUnavailableError
from persistence.records import LedgerEntry
from tests.persistence.processes import run, start

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


def test_a_ledger_from_before_configs_keeps_its_entries(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE config_versions")
        connection.execute("DROP TABLE configs")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
        names = [row[1] for row in connection.execute("PRAGMA table_info(ledger_entries)")]
        connection.execute(f"INSERT INTO ledger_entries VALUES ({', '.join('1' for _ in names)})")
        connection.commit()
    migrate(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM ledger_entries").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM configs").fetchone() == (0,)
    assert current(path) == HEAD


def test_a_published_version_can_t_be_changed(tmp_path: Path) -> None:
    migrate(tmp_path / "ledger.db")
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("INSERT INTO config_versions VALUES ('acme', 'cfg_1', 1, '{}', 0, 'key_1')")
        with pytest.raises(sqlite3.IntegrityError, match="never changes"):
            connection.execute("UPDATE config_versions SET content = '[]'")


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
