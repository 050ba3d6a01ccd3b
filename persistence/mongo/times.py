"""How documents write a time: BSON's dates are milliseconds since 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from bson.datetime_ms import DatetimeMS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def stamp(time: datetime) -> DatetimeMS:
    """Raises ValueError unless it is aware and a whole millisecond."""
    if time.tzinfo is None:
        raise ValueError("times must be aware")
    if time.microsecond % 1000:
        raise ValueError("times must be whole milliseconds")
    return floor(time)


def floor(time: datetime) -> DatetimeMS:
    """Rounded down: so `since <= time` and `time < until` hold for any microsecond, those two being whole."""
    return DatetimeMS((time - _EPOCH) // _MILLISECOND)
