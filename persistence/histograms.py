"""Durations counted in logarithmic bins: small, exact to merge, and good for percentiles within ±5 %."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from math import ceil, sqrt

LONGEST_MS = 10**9  # eleven days: whatever takes longer counts as that

Histogram = Mapping[int, int]
"""Bin → how many durations are in it."""

_FIRST_MARK = 0x21  # the character of bin 0; a text of such marks is a histogram too
_LANE = 32  # bits: four billion durations in one bin


def _edges() -> tuple[int, ...]:
    """Where bins begin, in milliseconds: each 9.5 % behind the one before. The first ones hold one value each."""
    edges = [0]
    while edges[-1] < LONGEST_MS:
        edges.append(min(LONGEST_MS, max(edges[-1] + 1, edges[-1] * 219 // 200)))
    return tuple(edges)


_EDGES = _edges()


def bin_of(milliseconds: int) -> int:
    """The bin of a duration of 0 ms or more."""
    return bisect_right(_EDGES, milliseconds) - 1


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """The histogram of all together."""
    first, *others = [each for each in histograms if each] or [{}]
    if not others:
        return first
    total = dict(first)
    for other in others:
        for each, count in other.items():
            total[each] = total.get(each, 0) + count
    return total


def lanes(texts: str, marked: str = "") -> int:
    """A histogram as one number, a lane of bits for each bin, so that adding numbers merges histograms. Of texts by
    `packed`, one behind the other, and of durations marked one by one, each by the character of its bin."""
    total = 0
    for text in texts.split():
        first, _, counts = text.partition(":")
        total += int(counts, 16) << _LANE * int(first)
    for mark, count in Counter(marked).items():
        total += count << _LANE * (ord(mark) - _FIRST_MARK)
    return total


def packed(number: int) -> str:
    """Such a number as text: the first bin that is not empty, and the lanes from there on."""
    if not number:
        return ""
    first = ((number & -number).bit_length() - 1) // _LANE
    return f"{first}:{number >> _LANE * first:x} "


def unpacked(number: int) -> Histogram:
    """Such a number as a histogram."""
    size = -(-number.bit_length() // _LANE)
    counts = struct.unpack(f"<{size}I", number.to_bytes(size * _LANE // 8, "little"))
    return {each: count for each, count in enumerate(counts) if count}


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
