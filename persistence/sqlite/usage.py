"""Usage sums over the embedded ledger: one statement, so that every figure is of the same moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from decimal import Context, Decimal
from typing import Any

import orjson

from ..histograms import lanes, unpacked
from ..usage_records import Dimension, LabelName, UsageCell, UsageFilter, UsageSelection, UsageSums
from .labels import label_head, label_line
from .rollup import COUNTS, DAY_MS, LIVE, OF_DAYS, PERIOD_MS, parsed, sum_of
from .usage_plan import plan

_THE_REST = ""  # what no group's key is: those are JSON
_EXACT = Context(prec=200)

# The text of a label, from behind its head to the end of its line: JSON.
_LABEL = """CASE WHEN instr(c.labels, {head}) THEN rtrim(substr(
    c.labels, instr(c.labels, {head}) + length({head}),
    instr(substr(c.labels, instr(c.labels, {head}) + length({head})), char(10)) - 1
), ',') END"""

# Slots begin with whole periods and days before 1970 too, where `%` is negative.
_PERIOD = f"c.slot - ((c.slot % {PERIOD_MS}) + {PERIOD_MS}) % {PERIOD_MS}"
_DAY = f"{{time}} - (({{time}} % {DAY_MS}) + {DAY_MS}) % {DAY_MS}"
_DAYS = ", ".join(str(tier.number) for tier in OF_DAYS)
_PERIOD_OF_DAY = " ".join(
    ["CASE tier", *(f"WHEN {day.number} THEN {period.number}" for day, period in OF_DAYS.items()), "END"]
)
# A day with an open period is read by periods, an open period from the live tier. CROSS JOIN: piece
# by piece, each a range of the key. Those that are `partly` open are told slot by slot, the others are read whole.
_READ = f"""
    WITH open AS MATERIALIZED (SELECT period FROM usage_open WHERE organisation = :organisation),
    open_days AS MATERIALIZED (
        SELECT {_DAY.format(time="period")} AS day FROM open
        UNION SELECT day FROM usage_open_days WHERE organisation = :organisation
    ),
    asked AS MATERIALIZED (
        SELECT json_extract(value, '$[0]') AS span, json_extract(value, '$[1]') AS tier,
            json_extract(value, '$[2]') AS start, json_extract(value, '$[3]') AS until FROM json_each(:cells)
    ), pieces AS MATERIALIZED (
        SELECT *, tier <> {LIVE.number} AND EXISTS (
            SELECT 1 FROM open_days WHERE day < until AND day + {DAY_MS} > start
        ) AS partly FROM asked
        UNION ALL SELECT span, {_PERIOD_OF_DAY}, max(start, day), min(until, day + {DAY_MS}), 1
        FROM asked JOIN open_days ON tier IN ({_DAYS}) AND day < until AND day + {DAY_MS} > start
        UNION ALL SELECT span, {LIVE.number}, max(start, period), min(until, period + {PERIOD_MS}), 0
        FROM asked JOIN open ON tier <> {LIVE.number} AND period < until AND period + {PERIOD_MS} > start
    ),
"""  # noqa: S608  # built of the texts in this file: values are bound, here and below
_OF_CELLS = f"""
    SELECT p.span{{dimensions}}, {{columns}} FROM pieces AS p CROSS JOIN usage_cells AS c
    WHERE c.organisation = :organisation AND c.tier = p.tier AND c.slot >= p.start AND c.slot < p.until
        AND CASE WHEN NOT p.partly THEN 1 WHEN p.tier IN ({_DAYS}) THEN {_DAY.format(time="c.slot")} NOT IN open_days
            ELSE {_PERIOD} NOT IN open END {{conditions}}
"""  # noqa: S608
_OF_ENTRIES = """
    SELECT json_extract(p.value, '$[0]') AS span{dimensions}, {columns}
    FROM json_each(:entries) AS p CROSS JOIN usage_facts AS c
    WHERE c.organisation = :organisation
        AND c.time >= json_extract(p.value, '$[1]') AND c.time < json_extract(p.value, '$[2]') {conditions}
"""
# Only what belongs to no group of its own is added up again.
_SUMS = f"""
    cells AS MATERIALIZED (
        SELECT span, json_array({{keys}}) AS group_key, {{summed}} FROM ({{parts}}) GROUP BY span{{names}}
    ),
    largest AS MATERIALIZED (
        SELECT group_key FROM cells GROUP BY group_key ORDER BY sum(entries) DESC, group_key LIMIT :max_groups
    )
    SELECT * FROM cells WHERE group_key IN largest
    UNION ALL SELECT span, '{_THE_REST}', {{summed}} FROM cells WHERE group_key NOT IN largest GROUP BY span
"""  # noqa: S608

_TEXTS = ("other_costs", "latency", "latency_marks", "time_to_first_token", "first_token_marks")
_CELL = {name: f"c.{name}" for name in (*COUNTS, *_TEXTS)}
_HALF = 10**9
_CELL |= {"cost": f"c.cost / {_HALF}", "picos": f"c.cost % {_HALF}"}  # of each, 64 bits hold the sum of 10^9 rows
_ENTRY = _CELL | {"latency": "''", "time_to_first_token": "''"}
_AGGREGATES = ", ".join(
    f"group_concat({name}, '') AS {name}" if name in _TEXTS else f"sum({name}) AS {name}" for name in _CELL
)
_NAMES = tuple(field.name for field in fields(UsageSums))

Parameters = dict[str, str | int | None]


def statement(organisation: str, asked: UsageSelection) -> tuple[str, Parameters]:
    """What to ask the database, and with which values."""
    planned = plan(asked)
    values: Parameters = {
        "organisation": organisation,
        "cells": orjson.dumps(planned.cells).decode(),
        "entries": orjson.dumps(planned.entries).decode(),
        "max_groups": asked.max_groups,
    }
    names = [f"d{number}" for number in range(len(asked.group_by))]
    told = [f", {_dimension(each, name, values)} AS {name}" for each, name in zip(asked.group_by, names, strict=True)]
    keys = [
        f"json({name})" if isinstance(each, LabelName) else name
        for each, name in zip(asked.group_by, names, strict=True)
    ]
    chosen = {
        "dimensions": "".join(told),
        "conditions": "".join(f" AND {each}" for each in _conditions(asked.where, values)),
    }
    parts = [_OF_CELLS.format(columns=_columns(_CELL), **chosen)] if planned.cells else []
    if planned.entries or not parts:
        parts.append(_OF_ENTRIES.format(columns=_columns(_ENTRY), **chosen))
    sums = _SUMS.format(
        parts=" UNION ALL ".join(parts),
        summed=_AGGREGATES,
        keys=", ".join(keys),
        names="".join(f", {name}" for name in names),
    )
    return _READ + sums, values


def cell(row: Sequence[Any]) -> UsageCell:
    """One row of the statement's answer."""
    span, place, *sums = row
    found = dict(zip(_CELL, sums, strict=True))
    values = {name: found[name] for name in _NAMES}
    values.update(
        cost=_plain(sum_of(parsed(found["other_costs"]), found["cost"] * _HALF + found["picos"])),
        latency=unpacked(lanes(found["latency"], found["latency_marks"])),
        time_to_first_token=unpacked(lanes(found["time_to_first_token"], found["first_token_marks"])),
    )
    return UsageCell(span, None if place == _THE_REST else tuple(orjson.loads(place)), UsageSums(**values))


def _columns(expressions: Mapping[str, str]) -> str:
    return ", ".join(f"{expression} AS {name}" for name, expression in expressions.items())


def _dimension(dimension: Dimension, name: str, values: Parameters) -> str:
    if isinstance(dimension, LabelName):
        values[f"label_{name}"] = label_head(dimension.name)
        return _LABEL.format(head=f":label_{name}")
    return f"nullif(c.{dimension}, x'')"


def _conditions(where: UsageFilter, values: Parameters) -> Iterator[str]:
    for field, wanted in where.fields.items():
        names = [f"only_{field}_{number}" for number in range(len(wanted))]
        values |= dict(zip(names, wanted, strict=True))
        yield f"+c.{field} IN ({', '.join(f':{name}' for name in names)})"  # `+`: a text is no number
    for number, (name, value) in enumerate(where.labels):
        values[f"only_label_{number}"] = label_line(name, value)
        yield f"instr(c.labels, :only_label_{number})"


def _plain(cost: Decimal) -> Decimal:
    """Without the zeros that the sum's scale has brought."""
    return Decimal(f"{cost.normalize(_EXACT):f}")
