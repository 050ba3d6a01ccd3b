"""Usage sums: one statement, so that every figure is of the same moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any

import orjson
from sqlalchemy import TextClause, text

from ..histograms import Histogram
from ..usage_records import Dimension, LabelName, UsageCell, UsageField, UsageFilter, UsageSelection, UsageSums, Value
from .texts import NOTHING, plain, stored
from .upkeep import VIEWS
from .usage_plan import QUARTERS, Piece, plan

LANE_DIGITS = 12
"""A histogram is a number of which each bin has that many digits."""

_EXACT = Context(prec=200)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_RUNS = 6
_NAMES = tuple(field.name for field in fields(UsageSums))
_SUMMED = ", ".join(f"sum({name}) AS {name}" for name in ("entries", *_NAMES))
_COLUMNS = ", ".join(f"c.{name}" for name in ("entries", *_NAMES))

_OF_CELLS = """
    SELECT p.span, {key} AS group_key, {columns}
    FROM unnest(CAST(:cell_spans AS int[]), CAST(:cell_tiers AS int[]), CAST(:cell_starts AS timestamptz[]),
        CAST(:cell_ends AS timestamptz[])) AS p (span, tier, since, until)
    JOIN usage_cells AS c ON c.organisation = :organisation AND c.tier = p.tier
        AND c.slot >= p.since AND c.slot < p.until
    WHERE true {conditions}
"""
_OF_ENTRIES = """
    SELECT p.span, {key} AS group_key, {columns}
    FROM unnest(CAST(:entry_spans AS int[]), CAST(:entry_starts AS timestamptz[]), CAST(:entry_ends AS timestamptz[]))
        AS p (span, since, until)
    JOIN usage_facts AS c ON c.organisation = :organisation AND c.time >= p.since AND c.time < p.until
    WHERE true {conditions}
"""
# The views of the aggregates are read by ranges that are known beforehand: each reaches for its chunks alone.
_OF_VIEW = """
    SELECT p.span, {key} AS group_key, {columns}
    FROM (
        SELECT CAST(:{run}_spans AS int[]) AS spans, CAST(:{run}_starts AS timestamptz[]) AS starts,
            CAST(:{run}_ends AS timestamptz[]) AS ends
    ) AS a
    CROSS JOIN {view} AS c
    CROSS JOIN LATERAL width_bucket(c.slot, a.starts) AS n
    CROSS JOIN LATERAL (SELECT a.spans[n] AS span, a.ends[n] AS until) AS p
    WHERE c.organisation = :organisation AND c.slot < p.until
        AND c.slot >= CAST(:{run}_since AS timestamptz) AND c.slot < CAST(:{run}_until AS timestamptz) {conditions}
"""
_LATE = text("SELECT slot FROM usage_late WHERE slot >= :since AND slot < :until ORDER BY slot")
_SUMS = f"""
    WITH parts AS ({{parts}}),
    cells AS MATERIALIZED (SELECT span, group_key, {_SUMMED} FROM parts GROUP BY span, group_key),
    largest AS MATERIALIZED (
        SELECT group_key FROM cells GROUP BY group_key ORDER BY sum(entries) DESC, group_key LIMIT :max_groups
    ), named AS (
        SELECT cells.*, CASE WHEN group_key IN (SELECT group_key FROM largest) THEN group_key END AS name FROM cells
    )
    SELECT span, name, {_SUMMED} FROM named GROUP BY span, name
"""  # noqa: S608  # built of the texts in this file: values are bound

Parameters = dict[str, object]


def late(asked: UsageSelection) -> tuple[TextClause, Parameters]:
    """Which quarter hours the aggregates don't have right, of those that are asked for; ascending. Raises ValueError
    for naive times."""
    plan(asked)
    since = min((start for start, _ in asked.spans), default=_EVER)
    until = max((end for _, end in asked.spans), default=_EVER)
    return _LATE, {"since": QUARTERS.floor(since), "until": until}


def statement(
    organisation: str, asked: UsageSelection, behind: Sequence[datetime] | None
) -> tuple[TextClause, Parameters]:
    """What to ask the database, and with which values. `behind`: where aggregates have the sums, what they lack."""
    pieces = plan(asked, behind or ())
    values: Parameters = {"organisation": stored(organisation), "max_groups": asked.max_groups}
    key = f"jsonb_build_array({', '.join(_dimension(each, n, values) for n, each in enumerate(asked.group_by))})"
    conditions = "".join(f" AND {each}" for each in _conditions(asked.where, values))
    parts = list(_of_cells(pieces, values) if behind is None else _of_views(pieces, values))
    entries = [piece for piece in pieces if piece.tier is None]
    if entries or not parts:
        parts.append(_OF_ENTRIES)
        values |= _bound("entry", entries)
    filled = (part.replace("{key}", key).replace("{conditions}", conditions) for part in parts)
    return text(_SUMS.replace("{parts}", " UNION ALL ".join(filled).replace("{columns}", _COLUMNS))), values


def _of_cells(pieces: Sequence[Piece], values: Parameters) -> Iterator[str]:
    cells = [piece for piece in pieces if piece.tier is not None]
    if cells:
        values |= _bound("cell", cells) | {"cell_tiers": [piece.tier.number for piece in cells if piece.tier]}
        yield _OF_CELLS


def _of_views(pieces: Sequence[Piece], values: Parameters) -> Iterator[str]:
    for tier, view in VIEWS.items():
        for number, run in enumerate(_runs([piece for piece in pieces if piece.tier == tier])):
            name = f"{view}_{number}"
            values |= _bound(name, run) | {f"{name}_since": run[0].start, f"{name}_until": run[-1].end}
            yield _OF_VIEW.replace("{view}", view).replace("{run}", name)


def _runs(pieces: Sequence[Piece]) -> Sequence[Sequence[Piece]]:
    """Neighbours together; all of them where that would be too many, since each is a part of the statement."""
    runs: list[list[Piece]] = []
    for piece in pieces:
        if runs and runs[-1][-1].end == piece.start:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs if len(runs) <= _MAX_RUNS else [pieces]


def cell(row: Sequence[Any]) -> UsageCell:
    """One row of the statement's answer."""
    span, name, _, *sums = row
    values: dict[str, Any] = dict(zip(_NAMES, map(int, sums), strict=True))
    values.update(
        cost=_without_zeros(sums[_NAMES.index("cost")]),
        latency=_histogram(values["latency"]),
        time_to_first_token=_histogram(values["time_to_first_token"]),
    )
    group = None if name is None else tuple(_read(value) for value in name)
    return UsageCell(span, group, UsageSums(**values))


def _bound(kind: str, pieces: Sequence[Piece]) -> Parameters:
    return {
        f"{kind}_spans": [piece.span for piece in pieces],
        f"{kind}_starts": [piece.start for piece in pieces],
        f"{kind}_ends": [piece.end for piece in pieces],
    }


def _dimension(dimension: Dimension, number: int, values: Parameters) -> str:
    if isinstance(dimension, LabelName):
        values[f"label_{number}"] = stored(dimension.name)
        return f"c.labels ->> CAST(:label_{number} AS text)"
    if dimension is UsageField.CONFIG_VERSION:
        return "nullif(c.config_version, -1)"
    values["nothing"] = NOTHING
    return f"nullif(c.{dimension}, :nothing)"


def _conditions(where: UsageFilter, values: Parameters) -> Iterator[str]:
    for field, wanted in where.fields.items():
        kind, held = ("bigint", int) if field is UsageField.CONFIG_VERSION else ("text", str)
        found = [each for each in wanted if isinstance(each, held)]  # the others no entry has
        values[f"only_{field}"] = [stored(each) if isinstance(each, str) else each for each in found]
        yield f"c.{field} = ANY (CAST(:only_{field} AS {kind}[]))"
    for number, (name, value) in enumerate(where.labels):
        values[f"only_label_{number}"] = orjson.dumps({stored(name): stored(value)}).decode()
        yield f"c.labels @> CAST(:only_label_{number} AS jsonb)"


def _read(value: Value) -> Value:
    return plain(value) if isinstance(value, str) else value


def _histogram(total: int) -> Histogram:
    digits = str(total)
    lanes = -(-len(digits) // LANE_DIGITS)
    digits = digits.zfill(lanes * LANE_DIGITS)
    counts = ((lanes - 1 - n, int(digits[n * LANE_DIGITS : (n + 1) * LANE_DIGITS])) for n in range(lanes))
    return {each: count for each, count in counts if count}


def _without_zeros(cost: Decimal) -> Decimal:
    """Those that the sum's scale has brought."""
    return Decimal(f"{cost.normalize(_EXACT):f}")
