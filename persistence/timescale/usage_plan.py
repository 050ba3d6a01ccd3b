"""Which cells, and which entries, a report is read from: whole days and hours of each span, quarter hours beside them,
and at its edges the entries themselves.

The database adds each entry to its cell in every tier: in the transaction that inserts it, or later, by continuous
aggregates. Quarter hours that are known to be behind are read from the entries.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ..usage_records import UsageField, UsageSelection

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

NARROW = frozenset({UsageField.PROVIDER, UsageField.MODEL, UsageField.OUTCOME})
WIDE = NARROW | {UsageField.PRINCIPAL, UsageField.CONFIG, UsageField.CONFIG_VERSION}


@dataclass(frozen=True, slots=True)
class Tier:
    number: int
    width: timedelta

    def floor(self, time: datetime) -> datetime:
        """Where the tier's slot begins that holds this time."""
        return _EPOCH + (time - _EPOCH) // self.width * self.width

    def ceiling(self, time: datetime) -> datetime:
        """The same, or where the next one begins unless it begins there."""
        return _EPOCH - (_EPOCH - time) // self.width * self.width


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


def plan(asked: UsageSelection, behind: Sequence[datetime] = ()) -> Sequence[Piece]:
    """In the order of time, without gap or overlap. `behind`: quarter hours, ascending, that no tier is read for.
    Raises ValueError for naive times."""
    tiers = _tiers(asked)
    pieces: list[Piece] = []
    for span, (since, until) in enumerate(asked.spans):
        if since.tzinfo is None or until.tzinfo is None:
            raise ValueError("times must be aware")
        # In UTC: of two times of one zone Python compares the wall clock, which shows some hours twice.
        for tier, start, end in _cut(since.astimezone(UTC), until.astimezone(UTC), tiers, behind):
            last = pieces[-1] if pieces else None
            if last is not None and (last.span, last.tier, last.end) == (span, tier, start):
                pieces[-1] = replace(last, end=end)
            else:
                pieces.append(Piece(span, tier, start, end))
    return pieces


def _tiers(asked: UsageSelection) -> Sequence[Tier]:
    """Those that have all dimensions of the selection; none where entries alone do."""
    if asked.where.labels:
        return ()
    needed = {*asked.group_by, *asked.where.fields}
    if needed <= set[object](NARROW):
        return (DAYS, HOURS, QUARTERS)
    return (QUARTERS,) if needed <= set[object](WIDE) else ()


_Cut = tuple[Tier | None, datetime, datetime]


def _cut(start: datetime, end: datetime, tiers: Sequence[Tier], behind: Sequence[datetime]) -> Iterator[_Cut]:
    if start >= end:
        return
    if not tiers:
        yield None, start, end
        return
    first, *finer = tiers
    inner_start, inner_end = first.ceiling(start), first.floor(end)
    if inner_start >= inner_end:
        yield from _cut(start, end, finer, behind)
        return
    yield from _cut(start, inner_start, finer, behind)
    yield from _whole(inner_start, inner_end, tiers, behind)
    yield from _cut(inner_end, end, finer, behind)


def _whole(start: datetime, end: datetime, tiers: Sequence[Tier], behind: Sequence[datetime]) -> Iterator[_Cut]:
    """Slots of the first tier, but for those that hold one that is behind."""
    first, *finer = tiers
    held = behind[bisect_left(behind, start) : bisect_left(behind, end)]
    for slot in sorted({first.floor(each) for each in held}):
        if start < slot:
            yield first, start, slot
        start = slot + first.width
        yield from _cut(slot, start, finer, held)
    if start < end:
        yield first, start, end
