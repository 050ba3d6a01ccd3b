"""Ids that sort by time and say what they name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from uuid_utils import uuid7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
COMPLETION_PREFIX = "cmp_"


def new_completion_id() -> tuple[str, datetime]:
    return new_id(COMPLETION_PREFIX)


def time_of(identity: str) -> datetime:
    """The millisecond that such an id carries. Raises ValueError for one that is none."""
    return _EPOCH + timedelta(milliseconds=int(identity.rpartition("_")[2], 16) >> 80)


def new_id(prefix: str) -> tuple[str, datetime]:
    """A fresh id, the prefix and the 32 hex digits of a UUIDv7 (RFC 9562, 5.7), with the millisecond that it
    carries."""
    value = uuid7()
    return prefix + value.hex, _EPOCH + timedelta(milliseconds=value.int >> 80)
