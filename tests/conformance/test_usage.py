"""Usage reports on every LedgerStore: they add up, and they agree with a plain fold over the entries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.ports import LedgerStore
from persistence.records import LedgerEntry, Outcome
from persistence.usage_records import Dimension, LabelName, UsageField, UsageFilter, UsageSelection, UsageSums
from resolvers import usage
from resolvers.calendar import Bucket
from resolvers.ledger import open_ledger
from resolvers.principal import Principal
from resolvers.usage import UsageQuery, UsageReport
from tests.conformance.test_ledger_store import STORES
from tests.persistence.entries import NOON, at, entry
from tests.persistence.usage_fold import folded
from tests.resolvers.scene import MemoryInflight

DAY = timedelta(days=1)
ROUNDS = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LedgerStore]:
    opener: Callable[[Path], AbstractAsyncContextManager[LedgerStore]] = request.param
    async with opener(tmp_path) as store:
        yield store


# The nights on which Berlin and Lord Howe change their clocks, and the day on which Samoa skipped one.
DAYS = ("2026-03-28", "2026-10-24", "2026-10-03", "2026-04-04", "2011-12-29")
STARTS = [datetime.fromisoformat(f"{day}T00:00Z") for day in DAYS]
BUCKETS = st.sampled_from([None, *list(Bucket)[1:]])
ZONES = ["UTC", "Asia/Kolkata", "Australia/Lord_Howe", "Europe/Berlin", "America/New_York", "Pacific/Apia"]
NAMES = st.sampled_from(["a", 'b"\\', "c.d", "$", "é[0]", "", "a\x00", "a\nb", '",', "\x00"])
counts = st.integers(0, 10**6)


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[datetime, list[LedgerEntry]]:
    """Up to 40 entries within three days of a start; a completion has up to 3 attempts, some are corrected."""
    start = draw(st.sampled_from(STARTS))
    found: list[LedgerEntry] = []
    for _ in range(draw(st.integers(0, 15))):
        first = entry(time=start + timedelta(minutes=draw(st.integers(0, 3 * 24 * 60))))
        numbers = draw(st.sampled_from([(1,), (0,), (1, 2), (1, 2, 3), (1, -1), (-2, 1, -1, 2)]))
        found += [replace(first, attempt=n, **draw(CHANGES) | (draw(SETTLES) if n < 0 else {})) for n in numbers]
    return start, found


CHANGES = st.fixed_dictionaries(
    {
        "provider": st.sampled_from(["openai", "groq"]),
        "model": st.sampled_from(["x", "y", 'z"']),
        "outcome": st.sampled_from(Outcome),
        "principal": st.sampled_from(["key_1", "key_2"]),
        "end_user": st.sampled_from([None, "", "u1", "u\x00"]),
        "config": st.sampled_from([None, "", "support"]),
        "config_version": st.sampled_from([None, 1, 10]),
        "input_tokens": counts,
        "output_tokens": counts,
        "cached_input_tokens": counts,
        "cache_write_tokens": counts,
        "reasoning_tokens": counts,
        "cost": st.none() | st.decimals(0, 10, places=12) | st.sampled_from([Decimal("1E-28"), Decimal("1E+9")]),
        "latency_ms": counts,
        "time_to_first_token_ms": st.none() | counts,
        "estimated": st.booleans(),
        "labels": st.dictionaries(NAMES, NAMES, max_size=2),
    }
)
SETTLES = st.fixed_dictionaries(
    {
        "input_tokens": st.integers(-(10**6), 10**6),
        "output_tokens": st.integers(-(10**6), 10**6),
        "cost": st.none() | st.decimals(-10, 10, places=9),
        "settles_cost": st.booleans(),
        "settles_estimate": st.booleans(),
        "corrects": st.just(1),
    }
)
dimensions: st.SearchStrategy[list[Dimension]] = st.lists(
    st.sampled_from(UsageField) | st.builds(LabelName, NAMES.filter(bool)), max_size=3, unique=True
)
VALUES = st.lists(st.sampled_from(["openai", "x", "u1", "u\x00", "failed", 1]), max_size=3)
filters = st.builds(
    UsageFilter,
    fields=st.dictionaries(st.sampled_from(UsageField), VALUES, max_size=2),
    labels=st.lists(st.tuples(NAMES, NAMES), max_size=1),
)


def total(parts: Any) -> UsageSums:
    return sum((part.sums for part in parts), start=UsageSums())


def adds_up(report: UsageReport, asked: UsageQuery) -> None:
    if asked.bucket is not None:
        assert total(report.buckets) == report.totals
        assert all(total(group.buckets) == group.sums for group in report.groups)
    if asked.group_by:
        assert total(report.groups) == report.totals
        for number, bucket in enumerate(report.buckets):
            assert total(group.buckets[number] for group in report.groups) == bucket.sums


@ROUNDS
@given(ledgers(), BUCKETS, st.sampled_from(ZONES), dimensions, filters | st.just(UsageFilter()))
async def test_everything_adds_up_and_agrees_with_a_plain_fold(
    store: LedgerStore,
    written: tuple[datetime, list[LedgerEntry]],
    bucket: Bucket | None,
    zone: str,
    group_by: list[Dimension],
    where: UsageFilter,
) -> None:
    start, entries = written
    asked = UsageQuery(start + DAY / 7, start + 2 * DAY, bucket, zone, tuple(group_by), where)
    mine = Principal("key_1", f"org_{uuid4().hex}", frozenset(), 0.0)
    entries = [replace(each, organisation=mine.organisation) for each in entries]
    await store.append(entries)
    async with open_ledger(store, MemoryInflight()) as ledger:
        report = await usage.report(ledger, mine, asked)
    adds_up(report, asked)

    def fold(since: datetime, until: datetime) -> dict[Any, UsageSums]:
        within = UsageSelection([(max(since, asked.since), min(until, asked.until))], asked.group_by, where, 1_000)
        return {cell.group: cell.sums for cell in folded(entries, mine.organisation, within)}

    whole = fold(asked.since, asked.until)
    assert report.totals == sum(whole.values(), start=UsageSums())
    if group_by:
        assert {group.values: group.sums for group in report.groups} == whole
    for number, each in enumerate(report.buckets):
        expected = fold(each.start, each.end)
        assert each.sums == sum(expected.values(), start=UsageSums())
        assert each.start.tzinfo == ZoneInfo(zone)
        for group in report.groups:
            assert group.buckets[number].sums == expected.get(group.values, UsageSums())


@pytest.mark.parametrize("bucket", [Bucket.MINUTE, Bucket.HOUR, Bucket.DAY])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe"])
async def test_the_hour_that_comes_twice_is_there_twice(store: LedgerStore, zone: str, bucket: Bucket) -> None:
    """The clocks go back within six hours from then: an entry every ten minutes, and the last second of the first."""
    start = {"Europe/Berlin": "2025-10-25T22:00Z", "Australia/Lord_Howe": "2026-04-04T13:00Z"}[zone]
    begun, org = datetime.fromisoformat(start), f"org_{uuid4().hex}"
    times = [begun + timedelta(minutes=10 * number) for number in range(36)]
    times += [begun + timedelta(hours=hours, seconds=-1) for hours in (2, 3, 4)]
    await store.append([entry(organisation=org, time=time) for time in times])
    async with open_ledger(store, MemoryInflight()) as ledger:
        principal = Principal("p", org, frozenset(), 0.0)
        query = UsageQuery(begun, begun + timedelta(hours=6), bucket, zone)
        report = await usage.report(ledger, principal, query)
    assert report.totals.attempts == len(times)
    for each in report.buckets:
        inside = [time for time in times if each.start.astimezone(UTC) <= time < each.end.astimezone(UTC)]
        assert each.sums.attempts == len(inside), each.start


async def test_the_smallest_groups_are_one(store: LedgerStore) -> None:
    org = f"org_{uuid4().hex}"
    sizes = {"a": 3, "b": 2, "c": 1, None: 1}
    entries = [entry(organisation=org, end_user=name, time=at(n)) for name, size in sizes.items() for n in range(size)]
    await store.append(entries)
    spans = [(NOON, at(1)), (at(1), at(2)), (at(2), at(9))]
    cells = await store.usage(org, UsageSelection(spans, [UsageField.END_USER], max_groups=2))
    found = {(cell.span, cell.group): cell.sums.attempts for cell in cells}
    assert found == {(0, ("a",)): 1, (1, ("a",)): 1, (2, ("a",)): 1, (0, ("b",)): 1, (1, ("b",)): 1, (0, None): 2}


async def test_an_organisation_sums_up_its_own(store: LedgerStore) -> None:
    ours, theirs = f"org_{uuid4().hex}", f"org_{uuid4().hex}"
    first = entry(organisation=ours)
    await store.append([first, replace(first, organisation=theirs, attempt=2)])
    [cell] = await store.usage(ours, UsageSelection([(NOON, at(1))]))
    assert (cell.sums.attempts, cell.sums.completions) == (1, 1)
    assert list(await store.usage(f"{ours}_2", UsageSelection([(NOON, at(1))]))) == []
