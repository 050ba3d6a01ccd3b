"""Made-up usage: as much as was asked for, such as reports have something to show of, and never in production."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.seeding import book, made_up_usage
from gateway.settings import SettingsError
from gateway.stores import DATABASE_FILE
from persistence.ports import LedgerStore
from persistence.records import LedgerEntry, Outcome
from persistence.usage_records import LabelName, UsageField, UsageSelection, UsageSums
from tests.persistence.embedded import open_sqlite_ledger

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAYS = timedelta(days=30)


def made_up(rows: int, seed: int = 1) -> list[LedgerEntry]:
    return list(made_up_usage("acme", rows, since=NOW - DAYS, until=NOW, seed=seed))


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_as_many_as_asked_for_within_the_range_and_in_order(rows: int) -> None:
    entries = made_up(rows)
    assert len(entries) == rows
    assert all(NOW - DAYS <= entry.time < NOW and entry.organisation == "acme" for entry in entries)
    assert len({(entry.completion_id, entry.attempt) for entry in entries}) == rows
    ids = sorted({entry.completion_id: entry.time for entry in entries}.items())
    assert [time for _, time in ids] == sorted(time for _, time in ids), "ids sort by time"


def test_the_same_seed_makes_the_same() -> None:
    assert made_up(50) == made_up(50)
    assert made_up(50) != made_up(50, seed=2)


def test_reports_have_something_to_show() -> None:
    entries = made_up(5000)
    assert {entry.outcome for entry in entries} == set(Outcome)
    for field, least in (("model", 6), ("principal", 5), ("config", 5), ("config_version", 3), ("end_user", 100)):
        assert len({getattr(entry, field) for entry in entries}) >= least, field
    assert Counter(entry.attempt for entry in entries).keys() == {0, 1, 2}
    assert any(entry.cost is None for entry in entries)
    assert any(entry.estimated for entry in entries)
    assert {name for entry in entries for name in entry.labels} == {"team", "feature"}
    days = Counter(entry.time.date() for entry in entries)
    assert min(list(days.values())[1:-1]) > 100, "every day has some"


class SlowStore:
    """Each transaction takes as long."""

    TAKES_S = 0.02

    def __init__(self) -> None:
        self.transactions: list[int] = []

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        self.transactions.append(len(entries))
        await asyncio.sleep(self.TAKES_S)


async def test_half_of_the_time_is_left_to_a_server_beside_it() -> None:
    store = SlowStore()
    began = time.monotonic()
    booked = [count async for count in book(cast(LedgerStore, store), iter(made_up(1000)))]
    assert booked[-1] == sum(store.transactions) == 1000
    assert max(store.transactions) <= 200, "a completion waits for no more"
    assert time.monotonic() - began >= 2 * SlowStore.TAKES_S * len(store.transactions)


async def sums(path: Path, organisation: str) -> UsageSums:
    async with open_sqlite_ledger(path) as ledger:
        now = datetime.now(UTC)
        asked = [UsageField.MODEL], [LabelName("team")]
        found = [
            await ledger.usage(organisation, UsageSelection([(now - DAYS, now)], group_by, max_groups=100))
            for group_by in asked
        ]
    by_cells, by_entries = (sum((cell.sums for cell in cells), start=UsageSums()) for cells in found)
    assert by_cells == by_entries
    return by_cells


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    found = {"DATA_DIR": str(tmp_path), "ENVIRONMENT": "LOCAL"}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def test_the_command_fills_the_ledger_of_the_developer(environment: Mapping[str, str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["dev", "seed-usage", "--rows", "4500"])
    assert done.exit_code == 0
    assert done.stdout.startswith("4,500 entries of local in ")
    found = asyncio.run(sums(tmp_path / DATABASE_FILE, "local"))
    assert found.completions < found.attempts < 4500
    assert found.cost > Decimal(1)
    assert asyncio.run(sums(tmp_path / DATABASE_FILE, "acme")) == UsageSums()


def test_another_organisation_and_fewer_days(environment: Mapping[str, str], tmp_path: Path) -> None:
    arguments = ["--rows", "10", "--days", "2", "--organisation", "acme", "--seed", "7"]
    assert CliRunner().invoke(app, ["dev", "seed-usage", *arguments]).exit_code == 0
    assert asyncio.run(sums(tmp_path / DATABASE_FILE, "acme")).completions


def test_production_refuses(environment: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "PRODUCTION")
    monkeypatch.setenv("JWT_TOKEN_SECRET", "x" * 40)
    monkeypatch.setenv("ENCRYPTION_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    done = CliRunner().invoke(app, ["dev", "seed-usage", "--rows", "10"])
    assert isinstance(done.exception, SettingsError)
    assert "PRODUCTION" in str(done.exception)
    assert not (tmp_path / DATABASE_FILE).exists()
