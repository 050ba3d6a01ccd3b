"""How the tables write a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970, rounded up: so `time >= since` and `time < until` hold for any microsecond."""
    if time.tzinfo is None:
        raise ValueError("times must be aware")
    return -((EPOCH - time) // MILLISECOND)
