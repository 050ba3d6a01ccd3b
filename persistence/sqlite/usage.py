"""Usage sums over the embedded ledger: one statement, so that every figure is of the same moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any

import orjson

from ..histograms import Histogram, bin_of, merged
from ..usage_records import Dimension, LabelName, UsageCell, UsageFilter, UsageSelection, UsageSums
from .times import milliseconds

_THE_REST = ""  # what no group's key is: those are JSON

_LAST = """NOT EXISTS (
    SELECT 1 FROM ledger_entries AS later
    WHERE later.completion_id = e.completion_id AND later.attempt > e.attempt
        AND later.time = e.time AND later.organisation = e.organisation
)"""
# CROSS JOIN: span by span, each a range of the index. One scan makes all cells; then the small groups become one.
_SUMS = f"""
    WITH cells AS MATERIALIZED (
        SELECT
            s.key AS span, {{key}} AS group_key, count(*) AS entries, count(*) FILTER (WHERE {_LAST}) AS completions,
            count(*) FILTER (WHERE attempt > 0) AS attempts,
            count(*) FILTER (WHERE attempt > 0 AND outcome = 'failed') AS failed_attempts,
            sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
            sum(cached_input_tokens) AS cached_input_tokens, sum(cache_write_tokens) AS cache_write_tokens,
            sum(reasoning_tokens) AS reasoning_tokens, decimal_sum(cost) AS cost, count(*) - count(cost) AS unpriced,
            sum(estimated) AS estimated,
            coalesce(sum(output_tokens) FILTER (WHERE attempt > 0), 0) AS written_tokens,
            coalesce(sum(latency_ms) FILTER (WHERE attempt > 0 AND output_tokens > 0), 0) AS writing_ms,
            histogram(CASE WHEN attempt > 0 THEN latency_ms END) AS latency,
            histogram(CASE WHEN attempt > 0 THEN time_to_first_token_ms END) AS time_to_first_token
        FROM json_each(:spans) AS s CROSS JOIN ledger_entries AS e
        WHERE e.organisation = :organisation
            AND e.time >= json_extract(s.value, '$[0]') AND e.time < json_extract(s.value, '$[1]') {{conditions}}
        GROUP BY 1, 2
    ), largest AS MATERIALIZED (
        SELECT group_key FROM cells GROUP BY group_key ORDER BY sum(entries) DESC, group_key LIMIT :max_groups
    )
    SELECT span, CASE WHEN group_key IN largest THEN group_key ELSE '{_THE_REST}' END, {{sums}}
    FROM cells GROUP BY 1, 2
"""  # noqa: S608  # built of the texts in this file: values are bound, here and below
_NAMES = tuple(field.name for field in fields(UsageSums))
_AGGREGATES = {"cost": "decimal_sum", "latency": "histogram_sum", "time_to_first_token": "histogram_sum"}
_LABEL = "SELECT value FROM json_each(e.labels) WHERE key = :{name}"

Parameters = dict[str, str | int | None]


class HistogramOf:
    """The aggregate `histogram` of durations: bin → count as JSON; NULL counts for nothing."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def step(self, milliseconds: int | None) -> None:
        if milliseconds is not None:
            number = bin_of(milliseconds)
            self._counts[number] = self._counts.get(number, 0) + 1

    def finalize(self) -> str:
        return orjson.dumps(self._counts, option=orjson.OPT_NON_STR_KEYS).decode()


class HistogramSum:
    """The aggregate `histogram_sum` of such histograms."""

    def __init__(self) -> None:
        self._sum: Histogram = {}

    def step(self, text: str) -> None:
        self._sum = merged(self._sum, _histogram(text))

    def finalize(self) -> str:
        return orjson.dumps(self._sum, option=orjson.OPT_NON_STR_KEYS).decode()


def statement(organisation: str, asked: UsageSelection) -> tuple[str, Parameters]:
    """What to ask the database, and with which values."""
    spans = [[milliseconds(start), milliseconds(end)] for start, end in asked.spans]
    values: Parameters = {
        "organisation": organisation,
        "spans": orjson.dumps(spans).decode(),
        "max_groups": asked.max_groups,
    }
    key = f"json_array({', '.join(_dimension(each, n, values) for n, each in enumerate(asked.group_by))})"
    conditions = "".join(f" AND {each}" for each in _conditions(asked.where, values))
    sums = ", ".join(f"{_AGGREGATES.get(name, 'sum')}({name})" for name in _NAMES)
    return _SUMS.format(key=key, conditions=conditions, sums=sums), values


def cell(row: Sequence[Any]) -> UsageCell:
    """One row of the statement's answer."""
    span, place, *sums = row
    values = dict(zip(_NAMES, sums, strict=True))
    values.update(
        cost=Decimal(values["cost"]),
        latency=_histogram(values["latency"]),
        time_to_first_token=_histogram(values["time_to_first_token"]),
    )
    return UsageCell(span, None if place == _THE_REST else tuple(orjson.loads(place)), UsageSums(**values))


def _dimension(dimension: Dimension, number: int, values: Parameters) -> str:
    if isinstance(dimension, LabelName):
        values[f"label_{number}"] = dimension.name
        return f"({_LABEL.format(name=f'label_{number}')})"
    return f"e.{dimension}"


def _conditions(where: UsageFilter, values: Parameters) -> Iterator[str]:
    for field, wanted in where.fields.items():
        values[f"only_{field}"] = orjson.dumps(list(wanted)).decode()
        yield f"e.{field} IN (SELECT value FROM json_each(:only_{field}))"  # noqa: S608
    for number, (name, value) in enumerate(where.labels):
        values |= {f"only_label_{number}": name, f"only_value_{number}": value}
        yield f":only_value_{number} = ({_LABEL.format(name=f'only_label_{number}')})"


def _histogram(text: str) -> Histogram:
    return {int(number): count for number, count in orjson.loads(text).items()}
