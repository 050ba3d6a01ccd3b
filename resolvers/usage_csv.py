"""A usage report as CSV (RFC 4180, UTF-8): a line for each bucket of each group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from persistence.histograms import Histogram, percentile
from persistence.usage_records import Dimension, LabelName, UsageSums, Value

from . import usage
from .usage import UsageBucket, UsageGroup, UsageReport

PERCENTILES = (50, 95, 99)
_COUNTS = (
    "completions",
    "attempts",
    "failed_attempts",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
_FIGURES = (
    *_COUNTS,
    "cost",
    "unpriced",
    "estimated",
    "error_rate",
    *(f"{name}_p{percent}" for name in ("latency_ms", "time_to_first_token_ms") for percent in PERCENTILES),
    "output_tokens_per_second",
)
# https://owasp.org/www-community/attacks/CSV_Injection: what makes a spreadsheet take a text for a formula
_FORMULA = ("'", "=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  # full-width ones are meant


def csv_of(report: UsageReport, group_by: Sequence[Dimension]) -> bytes:
    """A header, and a line for each bucket of each group; for each group where there are no buckets, and for each
    bucket where there are no groups. Where there are neither, the one line of the totals.

    Columns: the dimensions, a label's as "label:<name>"; with dimensions `other`, which is "true" where the line is of
    everything beyond the largest groups; `bucket_start` and `bucket_end`, ISO 8601 with offset, the range's where there
    are no buckets; then the figures. What there is none of is empty, and a text is always in quotes: so an empty one is
    told from none. A text that a spreadsheet might run, or that begins with an apostrophe, has one before it.
    """
    lines = [[*_columns(group_by), "bucket_start", "bucket_end", *_FIGURES]]
    groups = report.groups if group_by else (UsageGroup((), report.totals, report.buckets),)
    for group in groups:
        values = _values(group, len(group_by))
        lines += (
            [*values, bucket.start.isoformat(), bucket.end.isoformat(), *_figures(bucket.sums)]
            for bucket in group.buckets or (UsageBucket(report.since, report.until, group.sums),)
        )
    return "".join(f"{','.join(cells)}\r\n" for cells in lines).encode()


def _columns(group_by: Sequence[Dimension]) -> Iterator[str]:
    for dimension in group_by:
        yield _quoted(f"label:{dimension.name}") if isinstance(dimension, LabelName) else dimension.value
    if group_by:
        yield "other"


def _values(group: UsageGroup, count: int) -> list[str]:
    if not count:
        return []
    if group.values is None:
        return [""] * count + ["true"]
    return [*map(_cell, group.values), "false"]


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    return _quoted(f"'{value}" if value.startswith(_FORMULA) else value)


def _quoted(text: str) -> str:
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def _figures(sums: UsageSums) -> Iterator[str]:
    for name in _COUNTS:
        yield str(getattr(sums, name))
    yield _plain(sums.cost)
    yield str(sums.unpriced)
    yield str(sums.estimated)
    yield _number(usage.error_rate(sums))
    yield from _percentiles(sums.latency)
    yield from _percentiles(sums.time_to_first_token)
    yield _number(usage.output_tokens_per_second(sums))


def _percentiles(histogram: Histogram) -> Iterator[str]:
    return (_number(percentile(histogram, percent)) for percent in PERCENTILES)


def _number(figure: float | None) -> str:
    return "" if figure is None else str(round(figure, 4))


def _plain(money: Decimal) -> str:
    """Every digit, never an exponent; a zero has none to show."""
    return format(money, "f") if money else "0"
