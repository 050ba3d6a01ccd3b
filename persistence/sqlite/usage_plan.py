"""Which cells, and which entries, a report is read from: whole days, periods and quarter hours of each span, and at
its edges the entries themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..usage_records import UsageSelection
from .rollup import FOLDED, LIVE, NARROW, WIDE, Tier
from .times import milliseconds

_TIERS = sorted((LIVE, *FOLDED), key=lambda tier: -tier.width_ms)
_NARROW = [tier for tier in _TIERS if tier.dimensions == NARROW]
_WIDE = [tier for tier in _TIERS if tier.dimensions == WIDE]


@dataclass(frozen=True, slots=True)
class Plan:
    """`cells`: (span, tier, start, end), all slots of the tier from start to before end. `entries`: (span, start, end).
    Times in milliseconds since 1970."""

    cells: Sequence[tuple[int, int, int, int]]
    entries: Sequence[tuple[int, int, int]]


def plan(asked: UsageSelection) -> Plan:
    tiers = _tiers(asked)
    cells: list[tuple[int, int, int, int]] = []
    entries: list[tuple[int, int, int]] = []
    for span, (since, until) in enumerate(asked.spans):
        for tier, start, end in _pieces(milliseconds(since), milliseconds(until), tiers):
            if tier is None:
                entries.append((span, start, end))
            else:
                cells.append((span, tier.number, start, end))
    return Plan(cells, entries)


def _tiers(asked: UsageSelection) -> Sequence[Tier]:
    """Those that have all dimensions of the selection; none where entries alone do."""
    if asked.where.labels:
        return ()
    needed = {*asked.group_by, *asked.where.fields}
    if needed <= set[object](NARROW):
        return _NARROW
    return _WIDE if needed <= set[object](WIDE) else ()


def _pieces(start: int, end: int, tiers: Sequence[Tier]) -> Iterator[tuple[Tier | None, int, int]]:
    if start >= end:
        return
    if not tiers:
        yield None, start, end
        return
    first, *finer = tiers
    inner_start, inner_end = -(-start // first.width_ms) * first.width_ms, end // first.width_ms * first.width_ms
    if inner_start >= inner_end:
        yield from _pieces(start, end, finer)
        return
    yield from _pieces(start, inner_start, finer)
    yield first, inner_start, inner_end
    yield from _pieces(inner_end, end, finer)
