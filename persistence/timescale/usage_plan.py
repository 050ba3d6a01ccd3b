"""Which cells, and which entries, a report is read from: whole days and hours of each span, quarter hours beside them,
and at its edges the entries themselves.

The database adds each entry, in the transaction that inserts it, to its cell in every tier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..usage_records import UsageField, UsageSelection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

NARROW = frozenset({UsageField.PROVIDER, UsageField.MODEL, UsageField.OUTCOME})
WIDE = NARROW | {UsageField.PRINCIPAL, UsageField.CONFIG, UsageField.CONFIG_VERSION}


@dataclass(frozen=True, slots=True)
class Tier:
    number: int
    width: timedelta


QUARTERS = Tier(0, timedelta(minutes=15))
"""Every offset of a time zone in use is a multiple of it. The only tier with all of WIDE: the others have NARROW."""

HOURS = Tier(1, timedelta(hours=1))
DAYS = Tier(2, timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the span of this index, from start to before end: all slots of the tier; without one, entries."""

    span: int
    tier: Tier | None
    start: datetime
    end: datetime


def plan(asked: UsageSelection) -> Sequence[Piece]:
    """Raises ValueError for naive times."""
    tiers = _tiers(asked)
    spans = enumerate(asked.spans)
    return [Piece(span, *piece) for span, (since, until) in spans for piece in _cut(since, until, tiers)]


def _tiers(asked: UsageSelection) -> Sequence[Tier]:
    """Those that have all dimensions of the selection; none where entries alone do."""
    if asked.where.labels:
        return ()
    needed = {*asked.group_by, *asked.where.fields}
    if needed <= set[object](NARROW):
        return (DAYS, HOURS, QUARTERS)
    return (QUARTERS,) if needed <= set[object](WIDE) else ()


def _cut(start: datetime, end: datetime, tiers: Sequence[Tier]) -> Iterator[tuple[Tier | None, datetime, datetime]]:
    if start.tzinfo is None or end.tzinfo is None:
        raise ValueError("times must be aware")
    if start >= end:
        return
    if not tiers:
        yield None, start, end
        return
    first, *finer = tiers
    inner_start = _EPOCH - (_EPOCH - start) // first.width * first.width  # rounded up
    inner_end = _EPOCH + (end - _EPOCH) // first.width * first.width
    if inner_start >= inner_end:
        yield from _cut(start, end, finer)
        return
    yield from _cut(start, inner_start, finer)
    yield first, inner_start, inner_end
    yield from _cut(inner_end, end, finer)
