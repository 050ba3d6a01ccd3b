"""Durations counted in logarithmic bins: small, exact to merge, and good for percentiles within ±5 %."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from math import ceil, sqrt

GROWTH = 1.05
LONGEST_MS = 10**9  # eleven days: whatever takes longer counts as that

Histogram = Mapping[int, int]
"""Bin → how many durations are in it."""


def _edges() -> tuple[int, ...]:
    """Where bins begin, in milliseconds. The first ones hold one value each, as 5 % of it is less than 1 ms."""
    edges = [0]
    while edges[-1] < LONGEST_MS:
        edges.append(max(edges[-1] + 1, int(edges[-1] * GROWTH)))
    return tuple(edges)


_EDGES = _edges()


def bin_of(milliseconds: int) -> int:
    """The bin of a duration of 0 ms or more."""
    return bisect_right(_EDGES, milliseconds) - 1


def merged(one: Histogram, other: Histogram) -> Histogram:
    """The histogram of both together."""
    both = dict(one)
    for each, count in other.items():
        both[each] = both.get(each, 0) + count
    return both


def percentile(histogram: Histogram, percent: int) -> float | None:
    """The nearest-rank percentile (the smallest duration that `percent` of all do not exceed) in milliseconds, within
    ±5 %; None where nothing was counted."""
    rank = ceil(sum(histogram.values()) * percent / 100)
    for each in sorted(histogram):
        rank -= histogram[each]
        if rank <= 0:
            return _middle(each)
    return None


def _middle(number: int) -> float:
    """Equally far, as a ratio, from the bin's smallest and largest value."""
    first = _EDGES[number]
    last = _EDGES[number + 1] - 1 if number + 1 < len(_EDGES) else first
    return float(first) if first == last else sqrt(first * last)
