"""The rollup says what the entries say: in whatever order they come, folded or not yet."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.histograms import LONGEST_MS, bin_of, lanes, unpacked
from persistence.migrations.sqlite import migrate
from persistence.records import LedgerEntry, Outcome
from persistence.sqlite import rollup, usage
from persistence.sqlite.ledger import SQLiteLedger
from persistence.usage_records import Dimension, LabelName, UsageField, UsageFilter, UsageSelection
from tests.persistence.embedded import open_sqlite_ledger
from tests.persistence.entries import entry
from tests.persistence.usage_fold import folded

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
LATER = MIDNIGHT + timedelta(days=300)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
ROUNDS = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    migrate(tmp_path / "ledger.db")
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[SQLiteLedger]:
    async with open_sqlite_ledger(path) as ledger:
        yield ledger


minutes = st.integers(0, 3 * 24 * 60)
figures = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["x", "y"]),
        "outcome": st.sampled_from(Outcome),
        "principal": st.sampled_from(["key_1", "key_2"]),
        "config": st.sampled_from([None, "", "support"]),
        "config_version": st.sampled_from([None, 1]),
        "cost": st.none() | st.decimals(-(10**6), 10**6, places=13) | st.decimals(0, 10, places=9),
        "latency_ms": st.integers(0, 10**6),
        "time_to_first_token_ms": st.none() | st.integers(0, 10**4),
        "estimated": st.booleans(),
    }
)


@st.composite
def entries(draw: st.DrawFn) -> list[LedgerEntry]:
    """Of a few completions, in any order, some twice."""
    start = draw(st.sampled_from([MIDNIGHT, datetime(1969, 12, 30, tzinfo=UTC)]))
    found: list[LedgerEntry] = []
    for _ in range(draw(st.integers(1, 10))):
        first = entry(time=start + draw(minutes) * MINUTE)
        for attempt in draw(st.sampled_from([(1,), (0,), (1, 2), (0, 1, 2), (1, -1), (1, 2, -1)])):
            corrects: dict[str, Any] = {"corrects": 1, "settles_cost": True, "input_tokens": -7} if attempt < 0 else {}
            found.append(replace(first, attempt=attempt, **draw(figures), **corrects))
    return draw(st.permutations(found + found[:2]))


@st.composite
def spans(draw: st.DrawFn, start: datetime) -> list[tuple[datetime, datetime]]:
    """Neighbours: of days or quarter hours, or none of both."""
    step = draw(st.sampled_from([timedelta(days=1), timedelta(minutes=15), timedelta(hours=7), timedelta(minutes=1)]))
    first = start + draw(st.sampled_from([timedelta(), timedelta(minutes=-330), timedelta(minutes=7)]))
    edges = [first + number * step for number in range(draw(st.integers(2, 5)))] + [start + 4 * DAY]
    return [(since, until) for since, until in pairwise(edges) if since < until]


by: st.SearchStrategy[list[Dimension]] = st.lists(
    st.sampled_from([*rollup.WIDE, UsageField.END_USER, LabelName("team")]), max_size=3, unique=True
)
where = st.builds(
    UsageFilter,
    fields=st.dictionaries(st.sampled_from(rollup.WIDE), st.lists(st.sampled_from(["x", "key_1", "", 1]), max_size=3)),
)


@ROUNDS
@given(entries(), st.data())
async def test_it_agrees_with_a_plain_fold_at_any_moment(
    ledger: SQLiteLedger, written: list[LedgerEntry], data: st.DataObject
) -> None:
    org = f"org_{uuid4().hex}"
    booked: dict[tuple[str, int], LedgerEntry] = {}
    rest = [replace(each, organisation=org) for each in written]
    start = MIDNIGHT if written[0].time >= MIDNIGHT else datetime(1969, 12, 30, tzinfo=UTC)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        await ledger.append(rest[:size])
        for each in rest[:size]:
            booked.setdefault((each.completion_id, each.attempt), each)
        rest = rest[size:]
        if data.draw(st.booleans()):
            await ledger.fold(start + data.draw(minutes) * MINUTE)
        asked = UsageSelection(data.draw(spans(start)), data.draw(by), data.draw(where), max_groups=100)
        found = await ledger.usage(org, asked)
        expected = folded(list(booked.values()), org, asked)
        assert {(cell.span, cell.group): cell.sums for cell in found} == {
            (cell.span, cell.group): cell.sums for cell in expected
        }


async def test_a_cell_of_many_entries_stays_small_and_exact(ledger: SQLiteLedger, path: Path) -> None:
    many = [entry(latency_ms=number % 7 * 1000) for number in range(700)]
    await ledger.append(many)
    asked = UsageSelection([(many[0].time, many[0].time + MINUTE * 15)], [UsageField.MODEL])
    assert await ledger.usage("acme", asked) == folded(many, "acme", asked)
    with closing(sqlite3.connect(path)) as other:
        sizes = [row[0] for row in other.execute("SELECT entries FROM usage_cells WHERE tier = 0 ORDER BY 1")]
    assert sizes == [188, 256, 256]
    await ledger.fold(LATER)
    assert await ledger.usage("acme", asked) == folded(many, "acme", asked)


async def test_sums_beyond_any_cell(ledger: SQLiteLedger) -> None:
    """Of 10^-12 USD, which is what cells are in, 64 bits hold nine million dollars."""
    many = [entry(cost=Decimal("9999.999999999999")) for _ in range(1000)]
    await ledger.append(many)
    asked = UsageSelection([(MIDNIGHT, MIDNIGHT + DAY)])
    for _ in range(2):
        [cell] = await ledger.usage("acme", asked)
        assert cell.sums.cost == Decimal("9999999.999999999")
        await ledger.fold(LATER)


def test_the_sums_of_a_report_hold_a_billion_entries() -> None:
    """Of the largest costs that the ledger counts in 10^-12 USD: four digits before the point. Else it would refuse."""
    largest, rows = 10**16 - 1, 10**9
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE c (cost INTEGER)")
        database.execute("INSERT INTO c VALUES (?)", (largest,))
        columns = ", ".join(usage._CELL[name] for name in ("cost", "picos"))
        whole, part = database.execute(f"SELECT {columns} FROM c").fetchone()
    assert max(whole, usage._HALF - 1) * rows < 2**63
    assert whole * usage._HALF + part == largest


async def test_an_absurd_figure_keeps_no_entry_out_and_spoils_no_report(ledger: SQLiteLedger) -> None:
    absurd = [entry(output_tokens=2**63 - 1, completion_id=f"cmp_{number}", labels={"a": "b"}) for number in range(3)]
    await ledger.append(absurd)
    assert list(await ledger.completion("acme", "cmp_2")) == [absurd[2]]
    for where in (UsageFilter(), UsageFilter(labels=[("a", "b")])):
        [cell] = await ledger.usage("acme", UsageSelection([(MIDNIGHT, MIDNIGHT + DAY)], where=where))
        assert cell.sums.output_tokens == 3 * 10**12


def read_from(path: Path, asked: UsageSelection) -> set[str]:
    """The tables that such a report looks into."""
    statement, values = usage.statement("acme", asked)
    with closing(sqlite3.connect(path)) as other:
        steps = [row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    aliases = {"c": "usage_cells", "e": "ledger_entries"}
    return {aliases[words[1]] for words in map(str.split, steps) if len(words) > 1 and words[1] in aliases}


def days(zone_minutes: int) -> list[tuple[datetime, datetime]]:
    edges = [MIDNIGHT + timedelta(minutes=zone_minutes) + number * DAY for number in range(31)]
    return list(pairwise(edges))


@pytest.mark.parametrize("zone_minutes", [0, -120, 330, 345])
async def test_a_month_of_days_by_model_reads_no_entry_and_few_cells(
    ledger: SQLiteLedger, path: Path, zone_minutes: int
) -> None:
    asked = UsageSelection(days(zone_minutes), [UsageField.MODEL], max_groups=50)
    models = [f"m{number}" for number in range(4)]
    written = [
        entry(time=MIDNIGHT + number * 2 * MINUTE, model=models[number % 4], principal=f"key_{number % 50}")
        for number in range(20_000)
    ]
    await ledger.append(written)
    await ledger.fold(LATER)
    assert read_from(path, asked) == {"usage_cells"}
    places = {(cell.span, cell.group): cell.sums for cell in await ledger.usage("acme", asked)}
    assert places == {(cell.span, cell.group): cell.sums for cell in folded(written, "acme", asked)}
    with closing(sqlite3.connect(path)) as other:
        narrow = "SELECT count(*) FROM usage_cells WHERE tier = 4"
        assert other.execute(narrow).fetchone()[0] == 28 * 4


def test_edges_and_what_cells_do_not_tell_apart_are_read_from_entries(path: Path) -> None:
    whole = [(MIDNIGHT, MIDNIGHT + DAY)]
    assert read_from(path, UsageSelection([(MIDNIGHT + MINUTE, MIDNIGHT + DAY)])) == {"usage_cells", "ledger_entries"}
    assert read_from(path, UsageSelection(whole, [UsageField.CONFIG, UsageField.PRINCIPAL])) == {"usage_cells"}
    assert read_from(path, UsageSelection(whole, [UsageField.END_USER])) == {"ledger_entries"}
    assert read_from(path, UsageSelection(whole, where=UsageFilter(labels=[("a", "b")]))) == {"ledger_entries"}


async def test_what_comes_late_opens_its_period(ledger: SQLiteLedger, path: Path) -> None:
    await ledger.append([entry()])
    await ledger.fold(LATER)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert other.execute("SELECT * FROM usage_open").fetchall() == []
        await ledger.append([entry()])
        assert len(other.execute("SELECT * FROM usage_open").fetchall()) == 1


def test_the_database_has_the_bins_of_histograms(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        bins = other.execute("SELECT edge, mark FROM usage_bins ORDER BY edge").fetchall()
    assert len(bins) == bin_of(LONGEST_MS) + 1
    for number, (edge, mark) in enumerate(bins):
        assert unpacked(lanes("", mark)) == {number: 1} == {bin_of(edge): 1}
        assert bin_of(edge - 1) == number - 1
