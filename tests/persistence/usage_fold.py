"""Usage sums as a plain fold over entries: what every store must agree with, and what a store in memory does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from persistence.histograms import bin_of
from persistence.ports import LedgerStore
from persistence.records import LedgerEntry, Outcome
from persistence.usage_records import (
    Dimension,
    LabelName,
    UsageCell,
    UsageFilter,
    UsageSelection,
    UsageSums,
    Value,
)


def folded(entries: Sequence[LedgerEntry], organisation: str, asked: UsageSelection) -> list[UsageCell]:
    mine = [each for each in entries if each.organisation == organisation]
    booked = sorted((each for each in mine if each.attempt >= 0), key=lambda each: each.attempt)
    last = {(each.time, each.completion_id): each.attempt for each in booked}
    placed = [
        (span, tuple(value_of(each, dimension) for dimension in asked.group_by), each)
        for each in mine
        if matches(each, asked.where)
        for span, (since, until) in enumerate(asked.spans)
        if since <= each.time < until
    ]
    sizes = Counter(group for _, group, _ in placed)
    largest = {group for group, _ in sizes.most_common(asked.max_groups)} if asked.group_by else {()}
    cells: dict[tuple[int, tuple[Value, ...] | None], UsageSums] = {}
    for span, group, each in placed:
        key = (span, group if group in largest else None)
        ends = last.get((each.time, each.completion_id)) == each.attempt
        cells[key] = cells.get(key, UsageSums()) + sums_of(each, ends=ends)
    return [UsageCell(span, group, sums) for (span, group), sums in cells.items()]


def sums_of(entry: LedgerEntry, *, ends: bool) -> UsageSums:
    booked, sent = entry.attempt >= 0, entry.attempt > 0
    wrote = sent and entry.output_tokens > 0
    first = entry.time_to_first_token_ms
    return UsageSums(
        completions=int(ends),
        attempts=int(sent),
        failed_attempts=int(sent and entry.outcome is Outcome.FAILED),
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        cached_input_tokens=entry.cached_input_tokens,
        cache_write_tokens=entry.cache_write_tokens,
        reasoning_tokens=entry.reasoning_tokens,
        cost=entry.cost or Decimal(0),
        unpriced=int(booked and entry.cost is None) - int(entry.settles_cost),
        estimated=int(booked and entry.estimated) - int(entry.settles_estimate),
        written_tokens=entry.output_tokens if wrote else 0,
        writing_ms=entry.latency_ms if wrote else 0,
        latency={bin_of(entry.latency_ms): 1} if sent else {},
        time_to_first_token={bin_of(first): 1} if sent and first is not None else {},
    )


def value_of(entry: LedgerEntry, dimension: Dimension) -> Value:
    if isinstance(dimension, LabelName):
        return entry.labels.get(dimension.name)
    value: Value = getattr(entry, dimension.value)
    return str(value) if isinstance(value, Outcome) else value


def matches(entry: LedgerEntry, where: UsageFilter) -> bool:
    return all(value_of(entry, name) in wanted for name, wanted in where.fields.items()) and all(
        entry.labels.get(name) == value for name, value in where.labels
    )


async def usage_totals(store: LedgerStore, organisation: str, *, since: datetime, until: datetime) -> UsageSums:
    cells = await store.usage(organisation, UsageSelection([(since, until)]))
    return sum((cell.sums for cell in cells), start=UsageSums())
