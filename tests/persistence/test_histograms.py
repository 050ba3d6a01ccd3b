"""Percentiles from bins keep to their error, however the durations were put together."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.histograms import LONGEST_MS, Histogram, bin_of, lanes, merged, packed, percentile, unpacked

durations = st.integers(0, 50) | st.integers(0, 100_000) | st.integers(0, LONGEST_MS)
several = st.lists(durations, min_size=1, max_size=200)
percents = st.integers(1, 100)


def histogram(values: list[int]) -> Histogram:
    return Counter(map(bin_of, values))


@given(several, percents)
def test_a_percentile_is_within_five_percent(values: list[int], percent: int) -> None:
    exact = sorted(values)[ceil(len(values) * percent / 100) - 1]
    found = percentile(histogram(values), percent)
    assert found is not None
    assert abs(found - exact) <= 0.05 * exact


@given(several, several)
def test_merging_is_counting_together(one: list[int], other: list[int]) -> None:
    assert merged([histogram(one), {}, histogram(other)]) == histogram(one + other)


@given(durations, durations)
def test_bins_keep_the_order(one: int, other: int) -> None:
    smaller, larger = sorted((one, other))
    assert bin_of(smaller) <= bin_of(larger)


def test_short_durations_are_exact() -> None:
    assert [percentile({bin_of(value): 3}, 50) for value in range(22)] == list(range(22))


def test_a_hundred_values() -> None:
    found = [percentile(histogram(list(range(1, 101))), percent) for percent in (50, 95, 99, 100)]
    assert found == [pytest.approx(exact, rel=0.05) for exact in (50, 95, 99, 100)]


def test_nothing_counted() -> None:
    assert percentile({}, 50) is None


def test_bins_are_few_and_what_is_beyond_the_last_counts_as_the_longest() -> None:
    assert bin_of(LONGEST_MS) < 400
    assert percentile({bin_of(10**15): 1}, 99) == pytest.approx(LONGEST_MS, rel=0.05)


@given(several, several)
def test_a_packed_histogram_is_the_same_and_adds_up(one: list[int], other: list[int]) -> None:
    first, second = (
        packed(lanes("", "".join(chr(0x21 + bin_of(value)) for value in values))) for values in (one, other)
    )
    assert unpacked(lanes(first)) == histogram(one)
    assert unpacked(lanes(first + second)) == unpacked(lanes(first) + lanes(second)) == histogram(one + other)


def test_a_packed_histogram_of_nothing() -> None:
    assert (packed(0), unpacked(lanes("")), lanes("")) == ("", {}, 0)
