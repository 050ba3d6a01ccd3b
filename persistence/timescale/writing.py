"""Entries on their way into the tables: one statement a commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import TextClause, text

from ..records import LedgerEntry
from .policies import Edition
from .texts import stored
from .upkeep import LATE_AFTER

_MAX_COST_DIGITS = 60  # on either side of the point

TYPES = {
    "time": "timestamptz",
    "attempt": "integer",
    "config_version": "bigint",
    "input_tokens": "bigint",
    "output_tokens": "bigint",
    "cached_input_tokens": "bigint",
    "cache_write_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "cost": "numeric",
    "latency_ms": "bigint",
    "time_to_first_token_ms": "bigint",
    "estimated": "boolean",
    "cached": "boolean",
    "streamed": "boolean",
    "labels": "jsonb",
    "corrects": "integer",
    "settles_cost": "boolean",
    "settles_estimate": "boolean",
    "corrected_at": "timestamptz",
}
"""Of the columns that are no texts."""

NAMES = tuple(field.name for field in fields(LedgerEntry))
TEXTS = tuple(name for name in NAMES if name not in TYPES)

_COLUMNS = ", ".join(NAMES)
_OWN = ", ".join(f"g.{name}" for name in NAMES)
_ARRAYS = ", ".join(f"CAST(:{name} AS {TYPES.get(name, 'text')}[])" for name in NAMES)
_THERE = """
    SELECT FROM ledger_entries AS l
    WHERE l.time = g.time AND l.completion_id = g.completion_id AND l.attempt = g.attempt
"""
# A correction goes where its entry is, which was there a moment ago.
_KEPT = """(CAST(:retention AS interval) IS NULL OR g.time >= now() - CAST(:retention AS interval) OR g.attempt < 0)"""
_GIVEN = f"""
    given AS MATERIALIZED (SELECT * FROM unnest({_ARRAYS}) AS g ({_COLUMNS})),
    parked AS (
        INSERT INTO ledger_parked ({_COLUMNS})
        SELECT {_OWN} FROM given AS g WHERE NOT {_KEPT} AND NOT EXISTS ({_THERE})
        ON CONFLICT DO NOTHING RETURNING 1
    )
"""  # noqa: S608  # column names alone: values are bound, here and below
_SUMMED_BY_TRIGGER = text(f"""
    WITH {_GIVEN}, added AS (
        INSERT INTO ledger_entries ({_COLUMNS}) SELECT {_OWN} FROM given AS g WHERE {_KEPT} ON CONFLICT DO NOTHING
    )
    SELECT count(*), 0 FROM parked
""")  # noqa: S608

# The times of first and last say which chunks are concerned.
_SAME = """o.time = {0}.time AND o.completion_id = {0}.completion_id AND o.organisation = {0}.organisation
            AND o.time BETWEEN CAST(:first AS timestamptz) AND CAST(:last AS timestamptz)"""
_IS_LAST = f"""
    g.attempt >= 0 AND g.attempt = max(g.attempt) OVER (PARTITION BY g.time, g.completion_id, g.organisation)
        AND NOT EXISTS (SELECT FROM ledger_entries AS o WHERE {_SAME.format("g")} AND o.attempt > g.attempt)
"""
# An entry that is there already was perhaps written by a statement that was given up and went on: neither that one nor
# the one which wrote its completion's next attempt saw the other. It comes once more for having been given up.
_SUMMED_BY_AGGREGATES = text(f"""
    WITH {_GIVEN}, added AS (
        INSERT INTO ledger_entries AS e ({_COLUMNS}, ends)
        SELECT {_OWN}, {_IS_LAST}
        FROM (SELECT DISTINCT ON (time, completion_id, attempt) * FROM given) AS g WHERE {_KEPT}
        ON CONFLICT (time, completion_id, attempt) DO UPDATE SET ends = false
            WHERE e.ends AND NOT excluded.ends AND e.organisation = excluded.organisation
        RETURNING time, completion_id, attempt, organisation
    ), no_longer_last AS (
        UPDATE ledger_entries AS o SET ends = false
        FROM (
            SELECT time, completion_id, organisation, max(attempt) AS newest
            FROM added WHERE attempt > 0 GROUP BY time, completion_id, organisation
        ) AS a
        WHERE {_SAME.format("a")} AND o.ends AND o.attempt < a.newest
    ), noted AS (
        INSERT INTO usage_late AS l (slot, version)
        SELECT DISTINCT date_bin('15 minutes', time, timestamptz '1970-01-01 00:00:00Z') AS slot, 1
        FROM added WHERE time < now() - CAST(:late_after AS interval) ORDER BY slot
        ON CONFLICT (slot) DO UPDATE SET version = l.version + 1 RETURNING 1
    )
    SELECT (SELECT count(*) FROM parked), (SELECT count(*) FROM noted)
""")  # noqa: S608


def insertion(
    edition: Edition, entries: Sequence[LedgerEntry], retention: timedelta | None
) -> tuple[TextClause, dict[str, object]]:
    """What to tell the database, and with which values. It answers with a row: how many entries were parked, older than
    `retention`, and how many quarter hours have sums now that must be refreshed. Raises ValueError for what no table
    can hold."""
    values = _arrays(entries) | {"retention": retention}
    if edition is not Edition.COMMUNITY:
        return _SUMMED_BY_TRIGGER, values
    times = [entry.time for entry in entries]
    return _SUMMED_BY_AGGREGATES, values | {"first": min(times), "last": max(times), "late_after": LATE_AFTER}


def _arrays(entries: Sequence[LedgerEntry]) -> dict[str, object]:
    """A list for each column, in the order of the entries."""
    for entry in entries:
        if entry.time.tzinfo is None:
            raise ValueError("times must be aware")
        if entry.time.microsecond % 1000:
            raise ValueError("an entry's time must be a whole millisecond")
    arrays: dict[str, object] = {name: [getattr(entry, name) for entry in entries] for name in NAMES}
    for name in TEXTS:
        arrays[name] = [_text(getattr(entry, name)) for entry in entries]
    arrays["cost"] = [_cost(entry.cost) for entry in entries]
    arrays["labels"] = [label_text(entry.labels) for entry in entries]
    return arrays


def _text(value: str | None) -> str | None:
    return None if value is None else stored(str(value))


def _cost(cost: Decimal | None) -> Decimal | None:
    if cost is not None and (
        not cost.is_finite() or len(str(cost)) > _MAX_COST_DIGITS or abs(cost.adjusted()) > _MAX_COST_DIGITS
    ):
        raise ValueError("a cost must be a number of at most 60 digits")
    return cost


def label_text(labels: Any) -> str:
    if not labels:
        return "{}"
    return orjson.dumps({stored(name): stored(value) for name, value in labels.items()}).decode()
