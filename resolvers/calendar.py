"""Where the buckets of a report begin: on the clock and the calendar of a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import count, islice
from zoneinfo import ZoneInfo

_SECOND = timedelta(seconds=1)


class Bucket(StrEnum):
    """Weeks begin on Monday."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


_CLOCK = {Bucket.MINUTE: timedelta(minutes=1), Bucket.HOUR: timedelta(hours=1)}


def boundaries(since: datetime, until: datetime, bucket: Bucket, zone: ZoneInfo, *, limit: int) -> list[datetime]:
    """The starts, in UTC, of all buckets that meet since <= time < until, and the end of the last one; no more than
    `limit` buckets. Raises OverflowError where the calendar ends."""
    starts = _on_the_clock(since, _CLOCK[bucket], zone) if bucket in _CLOCK else _on_the_calendar(since, bucket, zone)
    found: list[datetime] = []
    for start in islice(starts, limit + 1):
        found.append(start)
        if start >= until:
            break
    return found


def _on_the_clock(since: datetime, step: timedelta, zone: ZoneInfo) -> Iterator[datetime]:
    """A bucket begins where the local clock shows a whole step, and where the clock is changed."""
    moment = _step_of(since.astimezone(UTC), step, zone)
    while True:
        yield moment
        following = moment + step - _since_whole(moment, step, zone)
        moment = _change(moment, following, zone) or following


def _step_of(moment: datetime, step: timedelta, zone: ZoneInfo) -> datetime:
    start = moment - _since_whole(moment, step, zone)
    return _change(start, moment + timedelta(microseconds=1), zone) or start


def _since_whole(moment: datetime, step: timedelta, zone: ZoneInfo) -> timedelta:
    clock = moment.astimezone(zone).time()
    return timedelta(minutes=clock.minute, seconds=clock.second, microseconds=clock.microsecond) % step


def _on_the_calendar(since: datetime, bucket: Bucket, zone: ZoneInfo) -> Iterator[datetime]:
    """A bucket begins with its first day, which begins with midnight, or where the clock skips that, right after."""
    first = since.astimezone(zone).date()
    last: datetime | None = None
    for number in count():
        start = _midnight(_first_day(first, bucket, number), zone)
        if start != last:  # a day that the zone left out altogether has no bucket
            yield start
        last = start


def _first_day(day: date, bucket: Bucket, number: int) -> date:
    """Of the bucket that is `number` behind the day's own."""
    if bucket is Bucket.DAY:
        return day + timedelta(days=number)
    if bucket is Bucket.WEEK:
        return day - timedelta(days=day.weekday()) + timedelta(weeks=number)
    years, month = divmod(day.month - 1 + number, 12)
    try:
        return date(day.year + years, month + 1, 1)
    except ValueError as error:
        raise OverflowError(str(error)) from error


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    start = datetime.combine(day, time(), zone).astimezone(UTC)
    if start.astimezone(zone).time() == time():
        return start
    # the clock skips midnight: the day begins with the change
    return _change(start - timedelta(days=1), start, zone) or start


def _change(start: datetime, end: datetime, zone: ZoneInfo) -> datetime | None:
    """The moment strictly within (start, end) at which the zone's offset changes; None where there is none."""
    before = start.astimezone(zone).utcoffset()
    low, high = start, end - timedelta(microseconds=1)
    if low >= high or high.astimezone(zone).utcoffset() == before:
        return None
    while high - low > _SECOND:
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle <= low:
            break
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)
