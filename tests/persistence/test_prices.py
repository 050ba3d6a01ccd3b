"""What of price rules the embedded file itself keeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from persistence.migrations.sqlite import migrate

RULE = (
    "INSERT INTO price_rules (id, organisation, provider, model, input, output, percent, since, created_at, created_by)"
    " VALUES ('prc_1', 'acme', ?, ?, ?, ?, ?, 0, 0, 'key_1')"
)
UNCHANGEABLE = ["since = 1", "input = '2'", "provider = 'groq'", "organisation = 'globex'", "id = 'prc_2'", "note = ''"]


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    migrate(tmp_path / "prices.db")
    with closing(sqlite3.connect(tmp_path / "prices.db")) as connection:
        yield connection


@pytest.mark.parametrize("change", UNCHANGEABLE)
def test_nothing_of_a_rule_changes(connection: sqlite3.Connection, change: str) -> None:
    connection.execute(RULE, ("openai", "o3", "1", "2", None))
    with pytest.raises(sqlite3.IntegrityError, match="but its end"):
        connection.execute(f"UPDATE price_rules SET {change}")
    connection.execute("UPDATE price_rules SET until = 5")


@pytest.mark.parametrize(
    "values",
    [
        ("openai", "o3", "1", None, None),
        ("openai", "o3", None, None, None),
        ("openai", "o3", "1", "2", "5"),
        (None, "o3", None, None, "5"),
    ],
)
def test_a_rule_is_an_override_or_a_discount(connection: sqlite3.Connection, values: tuple[str | None, ...]) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        connection.execute(RULE, values)
