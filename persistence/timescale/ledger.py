"""The ledger on a PostgreSQL server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC
from decimal import Decimal
from itertools import groupby
from typing import Any

import orjson
from sqlalchemy import text

from ..migrations.timescale import check
from ..ports import StoreUnavailableError
from ..records import CompletionFilter, CostSource, Cursor, LedgerEntry, Outcome
from ..usage_records import UsageCell, UsageSelection
from . import usage
from .engine import STATEMENT_TIMEOUT_S, Engine, open_engine
from .texts import plain, stored

POOL_SIZE = 5
LOOK_TIMEOUT_S = 2.0  # a probe of the server's must not outlast its prober's patience

_MAX_COST_DIGITS = 60  # on either side of the point

_TYPES = {
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

_NAMES = tuple(field.name for field in fields(LedgerEntry))
_TEXTS = tuple(name for name in _NAMES if name not in _TYPES)
_COLUMNS = ", ".join(f"e.{name}" for name in _NAMES)
_ARRAYS = ", ".join(f"CAST(:{name} AS {_TYPES.get(name, 'text')}[])" for name in _NAMES)
_INSERT = text(f"""
    INSERT INTO ledger_entries ({", ".join(_NAMES)}) SELECT * FROM unnest({_ARRAYS}) ON CONFLICT DO NOTHING
""")  # noqa: S608  # column names alone: values are bound, here and below
_COMPLETION = text(f"""
    SELECT {_COLUMNS} FROM ledger_entries AS e
    WHERE e.organisation = :organisation AND e.completion_id = :completion_id
    ORDER BY e.attempt
""")  # noqa: S608
_BY_KEY = text(f"""
    SELECT {_COLUMNS} FROM ledger_entries AS e
    WHERE e.organisation = :organisation AND e.completion_id = (
        SELECT completion_id FROM ledger_entries
        WHERE organisation = :organisation AND idempotency_key = :idempotency_key
        ORDER BY time DESC, completion_id DESC LIMIT 1
    )
    ORDER BY e.attempt
""")  # noqa: S608
_PAGE = f"""
    WITH page AS (
        SELECT DISTINCT time, completion_id FROM ledger_entries AS m
        WHERE {{conditions}}
        ORDER BY time DESC, completion_id DESC LIMIT :limit
    )
    SELECT {_COLUMNS} FROM page JOIN ledger_entries AS e USING (time, completion_id)
    WHERE e.organisation = :organisation
    ORDER BY e.time DESC, e.completion_id DESC, e.attempt
"""  # noqa: S608
_CONDITIONS = {
    "since": "m.time >= :since",
    "until": "m.time < :until",
    "after_time": "(m.time, m.completion_id) < (:after_time, :after_id)",
    "provider": "m.provider = :provider",
    "model": "m.model = :model",
    "end_user": "m.end_user = :end_user",
    "label": "m.labels @> CAST(:label AS jsonb)",
    "outcome": """:outcome = (
        SELECT outcome FROM ledger_entries AS l
        WHERE l.organisation = :organisation AND l.completion_id = m.completion_id AND l.time = m.time
        ORDER BY l.attempt DESC LIMIT 1
    )""",
}


class TimescaleLedger:
    """`persistence.ports.LedgerStore` in one table, and its rollup. Every method raises as `Engine` does, and
    SchemaVersionError while the database has another schema than this release needs: then nothing is written."""

    def __init__(self, writer: Engine, readers: Engine, prober: Engine) -> None:
        self._writer = writer
        self._readers = readers
        self._prober = prober
        self._checked = False

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Without entries it tells whether any could be written."""
        try:
            if not entries or not self._checked:
                await check(self._writer)
                self._checked = True
            if entries:
                await self._writer.run(_INSERT, _arrays(entries))
        except StoreUnavailableError:
            self._checked = False  # it may be another one when it is back
            raise

    async def look(self) -> str | None:
        """What keeps entries from being written, in a line; None where nothing does."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await check(self._prober)
        except StoreUnavailableError as error:
            self._checked = False
            return str(error)
        except TimeoutError:
            return f"PostgreSQL: no answer within {LOOK_TIMEOUT_S:g} s"
        return None

    async def completion(self, organisation: str, completion_id: str) -> Sequence[LedgerEntry]:
        return await self._entries(_COMPLETION, {"organisation": organisation, "completion_id": completion_id})

    async def completion_by_key(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        return await self._entries(_BY_KEY, {"organisation": organisation, "idempotency_key": idempotency_key})

    async def completions(
        self, organisation: str, *, where: CompletionFilter, limit: int, after: Cursor | None = None
    ) -> Sequence[Sequence[LedgerEntry]]:
        """Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked = _asked(where, after)
        conditions = [condition for name, condition in _CONDITIONS.items() if name in asked]
        statement = text(_PAGE.format(conditions=" AND ".join(["m.organisation = :organisation", *conditions])))
        values = asked | {"organisation": stored(organisation), "limit": limit}
        entries = [_entry(row) for row in await self._readers.run(statement, values)]
        return [list(group) for _, group in groupby(entries, key=lambda entry: (entry.time, entry.completion_id))]

    async def usage(self, organisation: str, asked: UsageSelection) -> Sequence[UsageCell]:
        rows = await self._readers.run(*usage.statement(organisation, asked))
        return await asyncio.to_thread(lambda: [usage.cell(row) for row in rows])

    async def _entries(self, statement: Any, asked: dict[str, str]) -> Sequence[LedgerEntry]:
        values = {name: stored(value) for name, value in asked.items()}
        return [_entry(row) for row in await self._readers.run(statement, values)]


@asynccontextmanager
async def open_timescale_ledger(
    url: str, *, pool_size: int = POOL_SIZE, statement_timeout_s: float = STATEMENT_TIMEOUT_S
) -> AsyncIterator[TimescaleLedger]:
    """Connects when it is first used. `pool_size`: connections for reads; one more writes, one more looks.
    Raises ValueError for an address that is none."""
    async with (
        open_engine(url, statement_timeout_s=statement_timeout_s) as writer,
        open_engine(url, pool_size=pool_size, statement_timeout_s=statement_timeout_s) as readers,
        open_engine(url, statement_timeout_s=LOOK_TIMEOUT_S) as prober,
    ):
        yield TimescaleLedger(writer, readers, prober)


def _asked(where: CompletionFilter, after: Cursor | None) -> dict[str, object]:
    """The values of _CONDITIONS, of those that apply."""
    found: dict[str, object | None] = {
        "since": where.since,
        "until": where.until,
        "after_time": None if after is None else after.time,
        "after_id": None if after is None else stored(after.completion_id),
        "provider": None if where.provider is None else stored(where.provider),
        "model": None if where.model is None else stored(where.model),
        "end_user": None if where.end_user is None else stored(where.end_user),
        "label": None if where.label is None else _labels(dict([where.label])),
        "outcome": None if where.outcome is None else str(where.outcome),
    }
    return {name: value for name, value in found.items() if value is not None}


def _arrays(entries: Sequence[LedgerEntry]) -> dict[str, object]:
    """A list for each column, in the order of the entries."""
    for entry in entries:
        if entry.time.tzinfo is None:
            raise ValueError("times must be aware")
        if entry.time.microsecond % 1000:
            raise ValueError("an entry's time must be a whole millisecond")
    arrays: dict[str, object] = {name: [getattr(entry, name) for entry in entries] for name in _NAMES}
    for name in _TEXTS:
        arrays[name] = [_text(getattr(entry, name)) for entry in entries]
    arrays["cost"] = [_cost(entry.cost) for entry in entries]
    arrays["labels"] = [_labels(entry.labels) for entry in entries]
    return arrays


def _text(value: str | None) -> str | None:
    return None if value is None else stored(str(value))


def _cost(cost: Decimal | None) -> Decimal | None:
    if cost is not None and (
        not cost.is_finite() or len(str(cost)) > _MAX_COST_DIGITS or abs(cost.adjusted()) > _MAX_COST_DIGITS
    ):
        raise ValueError("a cost must be a number of at most 60 digits")
    return cost


def _labels(labels: Any) -> str:
    if not labels:
        return "{}"
    return orjson.dumps({stored(name): stored(value) for name, value in labels.items()}).decode()


_READ: dict[str, Callable[[Any], object]] = {
    "time": lambda time: time.astimezone(UTC),
    "corrected_at": lambda time: time.astimezone(UTC),
    "outcome": Outcome,
    "cost_source": CostSource,
    "labels": lambda labels: {plain(name): plain(value) for name, value in labels.items()},
}


def _entry(row: Sequence[Any]) -> LedgerEntry:
    values = dict(zip(_NAMES, row, strict=True))
    for name in _TEXTS:
        if values[name] is not None:
            values[name] = plain(values[name])
    for name, read in _READ.items():
        if values[name] is not None:
            values[name] = read(values[name])
    return LedgerEntry(**values)
