"""Usage reports: what is refused, what is filled in, and how far it may go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.histograms import percentile
from persistence.usage_records import LabelName, UsageField, UsageFilter, UsageSums
from resolvers import usage
from resolvers.calendar import Bucket
from resolvers.errors import BadUserInputError, ServiceUnavailableError
from resolvers.ledger import Ledger, open_ledger
from resolvers.usage import MAX_CELLS, MAX_GROUPS, UsageQuery
from tests.persistence.entries import NOON, at, entry

from .scene import ACME, GLOBEX, MemoryInflight, MemoryStore

MODEL, PROVIDER = UsageField.MODEL, UsageField.PROVIDER
DAY = timedelta(days=1)


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def ledger(store: MemoryStore) -> AsyncIterator[Ledger]:
    async with open_ledger(store, MemoryInflight()) as ledger:
        yield ledger


def query(**changes: Any) -> UsageQuery:
    return UsageQuery(**{"since": NOON - DAY, "until": NOON + DAY} | changes)


async def refused(ledger: Ledger, **changes: Any) -> tuple[str | int, ...]:
    with pytest.raises(BadUserInputError) as caught:
        await usage.report(ledger, ACME, query(**changes))
    return caught.value.path


async def test_totals_of_a_range(ledger: Ledger, store: MemoryStore) -> None:
    store.entries = [entry(time=at(n)) for n in range(3)]
    before = datetime.now(UTC)
    report = await usage.report(ledger, ACME, query(since=at(0), until=at(2)))
    assert (report.totals.attempts, report.buckets, report.groups) == (2, (), ())
    assert before <= report.as_of <= datetime.now(UTC)
    assert (await usage.report(ledger, GLOBEX, query())).totals == UsageSums()


async def test_what_cannot_be_asked(ledger: Ledger) -> None:
    assert await refused(ledger, until=NOON - DAY) == ("input", "until")
    for zone in (
        "",
        "Mars/Olympus",
        "../etc/passwd",
        "/etc/localtime",
        "Europe",
        "localtime",
        "posixrules",
        "right/UTC",
        "Factory",
        "\ud800",
    ):
        assert await refused(ledger, time_zone=zone) == ("input", "timeZone"), zone
    assert await refused(ledger, group_by=(MODEL, PROVIDER, MODEL)) == ("input", "groupBy", 2)
    assert await refused(ledger, group_by=(LabelName(""),)) == ("input", "groupBy", 0, "label")
    assert await refused(ledger, group_by=tuple(LabelName(str(n)) for n in range(6))) == ("input", "groupBy")
    assert await refused(ledger, where=UsageFilter(labels=[("a", "b")] * 11)) == ("input", "filter", "labels")
    values = {UsageField.CONFIG_VERSION: [1] * 101}
    assert await refused(ledger, where=UsageFilter(fields=values)) == ("input", "filter", "configVersion")
    assert await refused(ledger, bucket=Bucket.MINUTE) == ("input", "bucket")
    late = datetime.max.replace(tzinfo=UTC)
    assert await refused(ledger, since=late - DAY, until=late, bucket=Bucket.MONTH) == ("input", "since")


async def test_a_ledger_that_cannot_be_read_says_so(ledger: Ledger, store: MemoryStore) -> None:
    store.down = True
    with pytest.raises(ServiceUnavailableError):
        await usage.report(ledger, ACME, query())


async def test_empty_buckets_are_there(ledger: Ledger, store: MemoryStore) -> None:
    store.entries = [entry(model="a"), entry(model="b", time=NOON + DAY / 4)]
    report = await usage.report(ledger, ACME, query(bucket=Bucket.HOUR, group_by=(MODEL,), time_zone="Asia/Kolkata"))
    assert len(report.buckets) == 49, "half an hour of the first and of the last are outside"
    assert [group.sums.attempts for group in report.groups] == [1, 1]
    for series in (report.buckets, *(group.buckets for group in report.groups)):
        assert [(each.start, each.end) for each in series] == [(each.start, each.end) for each in report.buckets]
    assert sum(each.sums.attempts == 0 for each in report.buckets) == 47
    assert report.buckets[0].start.isoformat() == "2026-02-28T17:00:00+05:30"


async def test_the_smallest_groups_are_one(ledger: Ledger, store: MemoryStore) -> None:
    store.entries = [entry(end_user=f"u{n}") for n in range(MAX_GROUPS + 5) for _ in range(1 + (n < MAX_GROUPS))]
    report = await usage.report(ledger, ACME, query(group_by=(UsageField.END_USER,)))
    assert [group.values is None for group in report.groups] == [False] * MAX_GROUPS + [True]
    assert report.groups[-1].sums.attempts == 5
    assert sum(group.sums.attempts for group in report.groups) == report.totals.attempts == len(store.entries)


async def test_buckets_times_groups_have_a_limit(ledger: Ledger, store: MemoryStore) -> None:
    buckets = 48
    fit = MAX_CELLS // buckets
    store.entries = [entry(principal=f"key_{n}") for n in range(fit)]
    by_key: dict[str, Any] = {"bucket": Bucket.HOUR, "group_by": (UsageField.PRINCIPAL,)}
    assert len((await usage.report(ledger, ACME, query(**by_key))).groups) == fit
    store.entries.append(entry(principal="one more"))
    assert await refused(ledger, **by_key) == ("input", "bucket")


def test_rates() -> None:
    sums = UsageSums(attempts=4, failed_attempts=1, written_tokens=50, writing_ms=2_000)
    assert (usage.error_rate(sums), usage.output_tokens_per_second(sums)) == (0.25, 25)
    assert (usage.error_rate(UsageSums()), usage.output_tokens_per_second(UsageSums())) == (None, None)


@given(st.lists(st.integers(0, 600_000), min_size=1, max_size=60), st.sampled_from([50, 95, 99]))
async def test_percentiles_of_a_report_are_within_five_percent(latencies: list[int], percent: int) -> None:
    store = MemoryStore()
    store.entries = [entry(latency_ms=each, model=f"m{n % 3}") for n, each in enumerate(latencies)]
    async with open_ledger(store, MemoryInflight()) as ledger:
        report = await usage.report(ledger, ACME, query(bucket=Bucket.DAY, group_by=(MODEL,)))
    exact = sorted(latencies)[ceil(len(latencies) * percent / 100) - 1]
    found = percentile(report.totals.latency, percent)
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact
