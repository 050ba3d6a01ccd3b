"""The embedded ledger: a table of the one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from datetime import datetime
from decimal import Decimal
from itertools import chain, groupby
from typing import Any

import orjson

from ..records import CompletionFilter, CostSource, Cursor, LedgerEntry, Outcome
from ..usage_records import UsageCell, UsageSelection
from . import usage
from .database import Database, transaction
from .folding import REST, Folding
from .labels import label_line, labels_text
from .times import EPOCH, MILLISECOND, milliseconds

_MAX_COST_DIGITS = 60  # on either side of the point, so that every sum is exact

_Row = tuple[str | int | None, ...]

_NAMES = tuple(field.name for field in fields(LedgerEntry))
_COLUMNS = ", ".join(f"e.{name}" for name in _NAMES)
_ROW = f"({', '.join('?' for _ in _NAMES)})"
_INSERT = f"INSERT INTO ledger_entries ({', '.join(_NAMES)}) VALUES {{rows}} ON CONFLICT DO NOTHING"  # noqa: S608
_ROWS = 100  # of one statement; SQLite takes 32,766 values
_COMPLETION = f"""
    SELECT {_COLUMNS} FROM ledger_entries AS e
    WHERE e.organisation = :organisation AND e.completion_id = :completion_id
    ORDER BY e.attempt
"""  # noqa: S608  # column names alone: values are bound, here and below
_BY_KEY = f"""
    SELECT {_COLUMNS} FROM ledger_entries AS e
    WHERE e.organisation = :organisation AND e.completion_id = (
        SELECT completion_id FROM ledger_entries
        WHERE organisation = :organisation AND idempotency_key = :idempotency_key
        ORDER BY time DESC, completion_id DESC LIMIT 1
    )
    ORDER BY e.attempt
"""  # noqa: S608
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
    "label": "instr(m.labels, :label)",
    "outcome": """:outcome = (
        SELECT outcome FROM ledger_entries AS l
        WHERE l.organisation = :organisation AND l.completion_id = m.completion_id AND l.time = m.time
        ORDER BY l.attempt DESC LIMIT 1
    )""",
}


class SQLiteLedger:
    """`persistence.ports.LedgerStore` in one table, and its rollup. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        await self._database.write(lambda connection: _append(connection, entries))

    async def fold(self, until: datetime) -> None:
        """Fold what has ended by then (see `persistence.sqlite.folding`), as fast as can be."""
        await Folding(self._database, rest=0).fold(until)

    async def completion(self, organisation: str, completion_id: str) -> Sequence[LedgerEntry]:
        asked = {"organisation": organisation, "completion_id": completion_id}
        return [_entry(row) for row in await self._database.look_up(_COMPLETION, asked)]

    async def completion_by_key(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        asked = {"organisation": organisation, "idempotency_key": idempotency_key}
        return [_entry(row) for row in await self._database.look_up(_BY_KEY, asked)]

    async def completions(
        self, organisation: str, *, where: CompletionFilter, limit: int, after: Cursor | None = None
    ) -> Sequence[Sequence[LedgerEntry]]:
        """Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked = _asked(where, after)
        conditions = [condition for name, condition in _CONDITIONS.items() if asked[name] is not None]
        statement = _PAGE.format(conditions=" AND ".join(["m.organisation = :organisation", *conditions]))
        rows = await self._database.report(statement, {**asked, "organisation": organisation, "limit": limit})
        entries = [_entry(row) for row in rows]
        return [list(group) for _, group in groupby(entries, key=lambda entry: (entry.time, entry.completion_id))]

    async def usage(self, organisation: str, asked: UsageSelection) -> Sequence[UsageCell]:
        rows = await self._database.report(*usage.statement(organisation, asked))
        return await asyncio.to_thread(lambda: [usage.cell(row) for row in rows])


@asynccontextmanager
async def open_sqlite_ledger(database: Database) -> AsyncIterator[SQLiteLedger]:
    """With a task that folds what is over, until the context is left."""
    folding = asyncio.create_task(Folding(database, rest=REST).run(), name="usage-folding")
    try:
        yield SQLiteLedger(database)
    finally:
        folding.cancel()
        with suppress(asyncio.CancelledError):
            await folding


def _append(connection: sqlite3.Connection, entries: Sequence[LedgerEntry]) -> None:
    rows = [_row(entry) for entry in entries]
    if len(rows) <= _ROWS:
        _insert(connection, rows)  # a transaction of its own; each statement more would change threads twice more
        return
    with transaction(connection):
        for start in range(0, len(rows), _ROWS):
            _insert(connection, rows[start : start + _ROWS])


def _insert(connection: sqlite3.Connection, rows: Sequence[_Row]) -> None:
    if rows:
        statement = _INSERT.format(rows=", ".join([_ROW] * len(rows)))
        connection.execute(statement, [*chain.from_iterable(rows)])


def _asked(where: CompletionFilter, after: Cursor | None) -> dict[str, str | int | None]:
    """The values of _CONDITIONS; None where one does not apply."""
    return {
        "since": None if where.since is None else milliseconds(where.since),
        "until": None if where.until is None else milliseconds(where.until),
        "after_time": None if after is None else milliseconds(after.time),
        "after_id": None if after is None else after.completion_id,
        "provider": where.provider,
        "model": where.model,
        "end_user": where.end_user,
        "label": None if where.label is None else label_line(*where.label),
        "outcome": None if where.outcome is None else str(where.outcome),
    }


def _cost_text(cost: Decimal) -> str:
    if not cost.is_finite() or len(str(cost)) > _MAX_COST_DIGITS or abs(cost.adjusted()) > _MAX_COST_DIGITS:
        raise ValueError("a cost must be a number of at most 60 digits")
    return format(cost, "f")  # SQLite adds up what has no exponent


def _row(entry: LedgerEntry) -> _Row:
    """In the order of LedgerEntry's fields."""
    if entry.time.microsecond % 1000:
        raise ValueError("an entry's time must be a whole millisecond")
    return (
        milliseconds(entry.time),
        entry.completion_id,
        entry.attempt,
        entry.organisation,
        entry.principal,
        entry.provider,
        entry.model,
        str(entry.outcome),
        entry.end_user,
        entry.config,
        entry.config_version,
        entry.idempotency_key,
        entry.input_tokens,
        entry.output_tokens,
        entry.cached_input_tokens,
        entry.cache_write_tokens,
        entry.reasoning_tokens,
        None if entry.cost is None else _cost_text(entry.cost),
        str(entry.cost_source),
        entry.price_version,
        entry.latency_ms,
        entry.time_to_first_token_ms,
        None if entry.finish_reason is None else str(entry.finish_reason),
        entry.error_code,
        int(entry.estimated),
        int(entry.cached),
        int(entry.streamed),
        labels_text(entry.labels),
        entry.corrects,
        int(entry.settles_cost),
        int(entry.settles_estimate),
        entry.corrected_by,
        None if entry.corrected_at is None else milliseconds(entry.corrected_at),
        entry.note,
    )


def _entry(row: Sequence[Any]) -> LedgerEntry:
    values = dict(zip(_NAMES, row, strict=True))
    cost, corrected_at = values["cost"], values["corrected_at"]
    values.update(
        time=EPOCH + values["time"] * MILLISECOND,
        outcome=Outcome(values["outcome"]),
        cost=None if cost is None else Decimal(cost),
        cost_source=CostSource(values["cost_source"]),
        estimated=bool(values["estimated"]),
        cached=bool(values["cached"]),
        streamed=bool(values["streamed"]),
        labels=orjson.loads(values["labels"]),
        settles_cost=bool(values["settles_cost"]),
        settles_estimate=bool(values["settles_estimate"]),
        corrected_at=None if corrected_at is None else EPOCH + corrected_at * MILLISECOND,
    )
    return LedgerEntry(**values)
