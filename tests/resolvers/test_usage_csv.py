"""Usage as CSV: which lines, which columns, exact figures, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.histograms import bin_of
from persistence.records import Outcome
from persistence.usage_records import Dimension, LabelName, UsageField, UsageSums
from resolvers import usage
from resolvers.audit import AuditLog
from resolvers.calendar import Bucket
from resolvers.errors import BadUserInputError, ServiceUnavailableError
from resolvers.ledger import open_ledger
from resolvers.usage import MAX_GROUPS, UsageGroup, UsageQuery, UsageReport
from resolvers.usage_csv import csv_of
from resolvers.usage_links import export
from tests.persistence.audit import MemoryAuditLog
from tests.persistence.entries import NOON, at, entry

from .scene import ACME, MemoryInflight, MemoryStore, OpenLinks

HOUR = timedelta(hours=1)
MODEL, END_USER = UsageField.MODEL, UsageField.END_USER
FIGURES = [
    "completions",
    "attempts",
    "failed_attempts",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost",
    "unpriced",
    "estimated",
    "error_rate",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "time_to_first_token_ms_p50",
    "time_to_first_token_ms_p95",
    "time_to_first_token_ms_p99",
    "output_tokens_per_second",
]
RANGE = ["bucket_start", "bucket_end"]


def a_report(totals: UsageSums, *groups: UsageGroup) -> UsageReport:
    return UsageReport(NOON, NOON + HOUR, NOON, totals, (), groups)


def read(text: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text.decode(), newline=""), strict=True))


async def exported(*entries: Any, **changes: Any) -> bytes:
    asked = UsageQuery(**{"since": NOON, "until": NOON + 2 * HOUR} | changes)
    store = MemoryStore()
    store.entries = list(entries)
    async with open_ledger(store, MemoryInflight()) as ledger:
        return csv_of(await usage.report(ledger, ACME, asked), asked.group_by)


def test_every_figure() -> None:
    sums = UsageSums(
        completions=2**40,
        attempts=8,
        failed_attempts=1,
        input_tokens=3,
        output_tokens=4,
        cached_input_tokens=5,
        cache_write_tokens=6,
        reasoning_tokens=7,
        cost=Decimal("1E-7"),
        unpriced=9,
        estimated=10,
        written_tokens=50,
        writing_ms=2_000,
        latency={bin_of(20): 1},
        time_to_first_token={bin_of(10): 1},
    )
    text = csv_of(a_report(sums), ())
    head, line, end = text.split(b"\r\n")
    assert head.decode().split(",") == [*RANGE, *FIGURES]
    assert line == (
        b"2026-03-01T12:00:00+00:00,2026-03-01T13:00:00+00:00,1099511627776,8,1,3,4,5,6,7,0.0000001,9,10,0.125,"
        b"20.0,20.0,20.0,10.0,10.0,10.0,25.0"
    )
    assert end == b""


def test_what_there_is_none_of_is_empty() -> None:
    (line,) = read(csv_of(a_report(UsageSums()), ()))
    assert [name for name in FIGURES if line[name] == ""] == [*FIGURES[11:]]
    assert {line[name] for name in FIGURES[:11]} == {"0"}


@pytest.mark.parametrize("cost", ["1E+20", "0E-12", "-0.50", "1234567890.000000000001"])
def test_money_is_plain_and_whole(cost: str) -> None:
    (line,) = read(csv_of(a_report(UsageSums(cost=Decimal(cost))), ()))
    assert "E" not in line["cost"]
    assert Decimal(line["cost"]) == Decimal(cost)


async def test_a_line_for_each_bucket_of_each_group_empty_ones_too() -> None:
    lines = read(
        await exported(
            entry(model="a", labels={"team": "search"}),
            entry(model="a", labels={"team": "search"}, time=NOON + HOUR),
            entry(model="b"),
            bucket=Bucket.HOUR,
            time_zone="Asia/Kolkata",
            group_by=(MODEL, LabelName("team")),
        )
    )
    assert list(lines[0]) == ["model", "label:team", "other", *RANGE, *FIGURES]
    starts = [f"2026-03-01T{hour}:00+05:30" for hour in ("17:00", "18:00", "19:00")]
    assert [(each["model"], each["label:team"], each["bucket_start"]) for each in lines] == [
        *(("a", "search", start) for start in starts),
        *(("b", "", start) for start in starts),
    ]
    assert [each["attempts"] for each in lines] == ["1", "1", "0", "1", "0", "0"]
    assert lines[0]["bucket_end"] == starts[1]


async def test_a_line_for_each_bucket_or_each_group() -> None:
    entries = [entry(config_version=3, outcome=Outcome.FAILED), entry(time=NOON + HOUR)]
    buckets = read(await exported(*entries, bucket=Bucket.HOUR))
    assert [(each["bucket_start"], each["attempts"]) for each in buckets] == [
        ("2026-03-01T12:00:00+00:00", "1"),
        ("2026-03-01T13:00:00+00:00", "1"),
    ]
    groups = read(await exported(*entries, group_by=(UsageField.CONFIG_VERSION, UsageField.OUTCOME)))
    assert [(each["config_version"], each["outcome"]) for each in groups] == [("3", "failed"), ("", "succeeded")]
    assert {(each["bucket_start"], each["bucket_end"]) for each in groups} == {
        ("2026-03-01T12:00:00+00:00", "2026-03-01T14:00:00+00:00")
    }


async def test_nothing_used_by_group_is_a_header_alone() -> None:
    assert read(await exported(group_by=(MODEL,))) == []


async def test_what_is_beyond_the_largest_groups_says_so() -> None:
    entries = [entry(end_user=f"u{n}", time=at(n)) for n in range(MAX_GROUPS + 3)]
    lines = read(await exported(*entries, group_by=(END_USER,)))
    assert [each["other"] for each in lines] == ["false"] * MAX_GROUPS + ["true"]
    assert (lines[-1]["end_user"], lines[-1]["attempts"]) == ("", "3")


@pytest.mark.parametrize("first", ["'", "=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])  # noqa: RUF001
def test_no_text_is_a_formula(first: str) -> None:
    text = f'{first}HYPERLINK("https://evil.example","x")'
    group = UsageGroup((text,), UsageSums(), ())
    (line,) = read(csv_of(a_report(UsageSums(), group), (LabelName("team"),)))
    assert line["label:team"] == f"'{text}"


@pytest.mark.parametrize("text", ["a=b", "a;=1", "o'neil", "  =1", "a,b", 'say "hi"', "two\r\nlines", "é✓", ""])
def test_other_texts_are_as_they_are(text: str) -> None:
    group = UsageGroup((text,), UsageSums(), ())
    (line,) = read(csv_of(a_report(UsageSums(), group), (END_USER,)))
    assert line["end_user"] == text


def test_an_empty_text_is_told_from_none() -> None:
    groups = [UsageGroup((value,), UsageSums(), ()) for value in ("", None, "a;=1")]
    _, *lines, _ = csv_of(a_report(UsageSums(), *groups), (END_USER,)).split(b"\r\n")
    assert [line[:7] for line in lines] == [b'"",fals', b",false,", b'"a;=1",']


texts = st.text(st.characters(codec="utf-8"))


@given(st.lists(st.tuples(texts | st.none(), st.integers(0)), max_size=8), texts)
def test_every_cell_comes_through(values: list[tuple[str | None, int]], label: str) -> None:
    groups = [UsageGroup(each, UsageSums(completions=n), ()) for n, each in enumerate(values)]
    by: tuple[Dimension, ...] = (LabelName(label), UsageField.CONFIG_VERSION)
    text = csv_of(a_report(UsageSums(), *groups), by)
    head, *rows = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
    assert head == [f"label:{label}", "config_version", "other", *RANGE, *FIGURES]
    for number, (row, (value, version)) in enumerate(zip(rows, values, strict=True)):
        assert row[0] in (value or "", f"'{value}")
        assert row[0].startswith("'") or row[0] == (value or "")
        assert row[1:3] == [str(version), "false"]
        assert row[5] == str(number)


async def test_a_link_is_for_what_a_report_can_answer() -> None:
    asked = UsageQuery(NOON, NOON + HOUR)
    log = MemoryAuditLog()
    assert (await export(OpenLinks(), AuditLog(log), ACME, asked)).url == "/usage.csv?acme"
    (noted,) = log.events
    assert (noted.action, noted.after) == (
        "usage.export",
        {"since": NOON.isoformat(), "until": asked.until.isoformat(), "expiresAt": asked.until.isoformat()},
    )
    year = datetime(2025, 3, 1, tzinfo=UTC)
    for wrong, path in [
        (UsageQuery(NOON, NOON), "until"),
        (UsageQuery(NOON, NOON + HOUR, time_zone="Europe"), "timeZone"),
        (UsageQuery(year, NOON, Bucket.MINUTE), "bucket"),
    ]:
        with pytest.raises(BadUserInputError) as caught:
            await export(OpenLinks(), AuditLog(log), ACME, wrong)
        assert caught.value.path == ("input", path)
    log.down = True
    with pytest.raises(ServiceUnavailableError):
        await export(OpenLinks(), AuditLog(log), ACME, asked)
    assert log.events == [noted]
