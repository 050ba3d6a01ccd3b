"""Usage sums: one statement, so that every figure is of the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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

_EMPTY_LANE = "0" * LANE_DIGITS

_EXACT = Context(prec=200)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_RUNS = 6
_NAMES = tuple(field.name for field in fields(UsageSums))
_SUMMED = ", ".join(f"sum({name}) AS {name}" for name in ("entries", *_NAMES))
_TEXTS = frozenset({"latency", "time_to_first_token"})
_TOLD = ", ".join(
    f"CAST(sum({name}) AS text) AS {name}" if name in _TEXTS else f"sum({name}) AS {name}"
    for name in ("entries", *_NAMES)
)
_COLUMNS = ", ".join(f"c.{name}" for name in ("entries", *_NAMES))

# A source is read by a range that is known beforehand: a hypertable, or an aggregate's view, reaches for its chunks
# alone. In which span a row falls is looked up among their beginnings.
_OF_RUN = """
    SELECT p.span, {key} AS group_key, {columns}
    FROM (
        SELECT CAST(:{run}_spans AS int[]) AS spans, CAST(:{run}_starts AS timestamptz[]) AS starts,
            CAST(:{run}_ends AS timestamptz[]) AS ends
    ) AS a
    CROSS JOIN {source} AS c
    CROSS JOIN LATERAL width_bucket(c.{time}, a.starts) AS n
    CROSS JOIN LATERAL (SELECT a.spans[n] AS span, a.ends[n] AS until) AS p
    WHERE c.organisation = :organisation AND c.{time} < p.until
        AND c.{time} >= CAST(:{run}_since AS timestamptz) AND c.{time} < CAST(:{run}_until AS timestamptz) {conditions}
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
    SELECT span, name, {_TOLD} FROM named GROUP BY span, name
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
    parts = [
        part.replace("{key}", key).replace("{conditions}", conditions).replace("{columns}", _COLUMNS)
        for part in _parts(pieces, values, aggregates=behind is not None)
    ]
    return text(_SUMS.replace("{parts}", " UNION ALL ".join(parts))), values


def _parts(pieces: Sequence[Piece], values: Parameters, *, aggregates: bool) -> Iterator[str]:
    """One for each run of pieces; without any, one that finds nothing."""
    for tier in (*VIEWS, None):
        source, time = ("usage_facts", "time") if tier is None else (VIEWS[tier], "slot")
        if tier is not None and not aggregates:
            source = f"(SELECT * FROM usage_cells WHERE tier = {tier.number})"  # noqa: S608  # a number of ours
        of_tier = [piece for piece in pieces if piece.tier == tier]
        runs = _runs(of_tier) if pieces or tier else [of_tier]
        for number, run in enumerate(runs):
            name = f"{'entries' if tier is None else VIEWS[tier]}_{number}"
            values |= _bound(name, run)
            yield _OF_RUN.replace("{source}", source).replace("{time}", time).replace("{run}", name)


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
    told = dict(zip(_NAMES, sums, strict=True))
    values: dict[str, Any] = {name: _READ_AS.get(name, int)(value) for name, value in told.items()}
    group = None if name is None else tuple(_read(value) for value in name)
    return UsageCell(span, group, UsageSums(**values))


def _bound(name: str, run: Sequence[Piece]) -> Parameters:
    return {
        f"{name}_spans": [piece.span for piece in run],
        f"{name}_starts": [piece.start for piece in run],
        f"{name}_ends": [piece.end for piece in run],
        f"{name}_since": run[0].start if run else _EVER,
        f"{name}_until": run[-1].end if run else _EVER,
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


def _histogram(digits: str) -> Histogram:
    """It comes as text: to make a number of thousands of digits, here or in the driver, takes their square."""
    lanes = -(-len(digits) // LANE_DIGITS)
    digits = digits.zfill(lanes * LANE_DIGITS)
    counts: dict[int, int] = {}
    for number in range(lanes):
        end = len(digits) - number * LANE_DIGITS
        if (lane := digits[end - LANE_DIGITS : end]) != _EMPTY_LANE:
            counts[number] = int(lane)
    return counts


def _without_zeros(cost: Decimal) -> Decimal:
    """Those that the sum's scale has brought."""
    return Decimal(f"{cost.normalize(_EXACT):f}")


_READ_AS: Mapping[str, Callable[[Any], Any]] = {
    "cost": _without_zeros,
    "latency": _histogram,
    "time_to_first_token": _histogram,
}
