"""Buckets begin where the local clock and calendar say, through every change of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolvers.calendar import Bucket, boundaries

HOUR = timedelta(hours=1)
START = datetime(2010, 1, 1, tzinfo=UTC)
ZONES = ["UTC", "Asia/Kolkata", "Australia/Lord_Howe", "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia"]


def local(since: str, until: str, bucket: Bucket, name: str) -> tuple[list[str], list[float]]:
    """Where buckets begin on the local clock, and how many hours each has."""
    zone = ZoneInfo(name)
    start, end = (datetime.fromisoformat(text).replace(tzinfo=zone) for text in (since, until))
    found = boundaries(start, end, bucket, zone, limit=100)
    shown = [moment.astimezone(zone).strftime("%m-%d %H:%M") for moment in found]
    return shown, [(end - start) / HOUR for start, end in pairwise(found)]


@pytest.mark.parametrize(
    ("zone", "days", "hours"),
    [
        ("Europe/Berlin", ("2026-03-28", "2026-03-31"), [24, 23, 24]),
        ("Europe/Berlin", ("2026-10-24", "2026-10-27"), [24, 25, 24]),
        ("Australia/Lord_Howe", ("2026-10-03", "2026-10-06"), [24, 23.5, 24]),
        ("Australia/Lord_Howe", ("2026-04-04", "2026-04-07"), [24, 24.5, 24]),
        ("America/Sao_Paulo", ("2018-02-16", "2018-02-19"), [24, 25, 24]),
        ("Asia/Kolkata", ("2026-03-28", "2026-03-31"), [24, 24, 24]),
    ],
)
def test_days_are_as_long_as_the_clock_makes_them(zone: str, days: tuple[str, str], hours: list[float]) -> None:
    shown, lengths = local(*days, Bucket.DAY, zone)
    assert lengths == hours
    assert {text[-5:] for text in shown} == {"00:00"}


def test_a_day_without_midnight_begins_with_the_change() -> None:
    shown, lengths = local("2018-11-03", "2018-11-06", Bucket.DAY, "America/Sao_Paulo")
    assert shown == ["11-03 00:00", "11-04 01:00", "11-05 00:00", "11-06 00:00"]
    assert lengths == [24, 23, 24]
    shown, _ = local("1919-03-30", "1919-04-01", Bucket.DAY, "America/Toronto")
    assert shown == ["03-30 00:00", "03-31 00:30", "04-01 00:00"]


def test_a_day_that_never_was_has_no_bucket() -> None:
    shown, lengths = local("2011-12-29", "2012-01-01", Bucket.DAY, "Pacific/Apia")
    assert shown == ["12-29 00:00", "12-31 00:00", "01-01 00:00"]
    assert lengths == [24, 24]


@pytest.mark.parametrize(
    ("zone", "since", "until", "starts", "lengths"),
    [
        ("Europe/Berlin", "2026-03-29 01:00", "2026-03-29 04:00", ["01:00", "03:00", "04:00"], [1, 1]),
        ("Europe/Berlin", "2026-10-25 01:00", "2026-10-25 03:00", ["01:00", "02:00", "02:00", "03:00"], [1, 1, 1]),
        ("Australia/Lord_Howe", "2026-10-04 01:00", "2026-10-04 03:00", ["01:00", "02:30", "03:00"], [1, 0.5]),
        ("Australia/Lord_Howe", "2026-10-04 02:45", "2026-10-04 04:00", ["02:30", "03:00", "04:00"], [0.5, 1]),
        ("Australia/Lord_Howe", "2026-04-05 01:00", "2026-04-05 02:00", ["01:00", "01:30", "02:00"], [1, 0.5]),
        ("Asia/Kolkata", "2026-01-01 09:10", "2026-01-01 10:10", ["09:00", "10:00", "11:00"], [1, 1]),
        ("Asia/Kathmandu", "2026-01-01 09:10", "2026-01-01 10:10", ["09:00", "10:00", "11:00"], [1, 1]),
    ],
)  # fmt: skip
def test_hours_are_the_local_clocks(zone: str, since: str, until: str, starts: list[str], lengths: list[float]) -> None:
    shown, found = local(since, until, Bucket.HOUR, zone)
    assert [text[-5:] for text in shown] == starts
    assert found == lengths


def test_weeks_begin_on_monday_and_months_on_their_first() -> None:
    assert local("2026-01-01", "2026-01-13", Bucket.WEEK, "Asia/Kolkata")[0] == [
        "12-29 00:00",
        "01-05 00:00",
        "01-12 00:00",
        "01-19 00:00",
    ]
    shown, hours = local("2026-11-15", "2027-03-01", Bucket.MONTH, "Europe/Berlin")
    assert shown == [f"{month:02}-01 00:00" for month in (11, 12, 1, 2, 3)]
    assert [length / 24 for length in hours] == [30, 31, 31, 28]


moments = st.integers(0, 20 * 366 * 86400).map(lambda seconds: START + timedelta(seconds=seconds))


@given(moments, st.timedeltas(timedelta(seconds=1), timedelta(days=4)), st.sampled_from(Bucket), st.sampled_from(ZONES))
def test_buckets_cover_the_range_without_gap_or_overlap(
    since: datetime, length: timedelta, bucket: Bucket, name: str
) -> None:
    zone = ZoneInfo(name)
    found = boundaries(since, since + length, bucket, zone, limit=10_000)
    assert found == sorted(set(found))
    assert found[0] <= since < found[1]
    assert found[-2] < since + length <= found[-1]
    later = boundaries(found[-2], since + length, bucket, zone, limit=10_000)
    assert later == found[-2:], "where a bucket begins does not depend on where the range does"


def test_no_more_than_the_limit() -> None:
    since = datetime(2026, 1, 1, tzinfo=UTC)
    found = boundaries(since, since + timedelta(days=999), Bucket.DAY, ZoneInfo("UTC"), limit=10)
    assert len(found) == 11
    assert len(boundaries(since, since + timedelta(days=10), Bucket.DAY, ZoneInfo("UTC"), limit=10)) == 11


@pytest.mark.parametrize("bucket", Bucket)
def test_the_calendar_has_an_end(bucket: Bucket) -> None:
    last = datetime.max.replace(tzinfo=UTC)
    with pytest.raises(OverflowError):
        boundaries(last - timedelta(seconds=1), last, bucket, ZoneInfo("UTC"), limit=100)
