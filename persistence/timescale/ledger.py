"""The ledger on a PostgreSQL server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC
from itertools import groupby
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ..migrations.timescale import check
from ..ports import StoreUnavailableError
from ..records import CompletionFilter, CostSource, Cursor, LedgerEntry, Outcome
from ..usage_records import UsageCell, UsageSelection
from . import usage
from .engine import STATEMENT_TIMEOUT_S, Engine, open_engine, rows_of
from .policies import Edition, Policies
from .replica import MAX_LAG_S, Readers, watched_readers
from .texts import plain, stored
from .upkeep import Upkeep, running_upkeep
from .writing import NAMES, TEXTS, insertion, label_text

POOL_SIZE = 5
LOOK_TIMEOUT_S = 2.0  # a probe of the server's must not outlast its prober's patience

log = structlog.get_logger("ledger")

_COLUMNS = ", ".join(f"e.{name}" for name in NAMES)
_COMPLETION = text(f"""
    SELECT {_COLUMNS} FROM ledger_entries AS e
    WHERE e.organisation = :organisation AND e.completion_id = :completion_id
    ORDER BY e.attempt
""")  # noqa: S608  # column names alone: values are bound, here and below
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
    """`persistence.ports.LedgerStore` in one table, and its sums. Every method raises as `Engine` does, and
    SchemaVersionError while the database has another schema than this release needs: then nothing is written."""

    def __init__(
        self,
        writer: Engine,
        readers: Engine | Readers,
        current: Engine,
        prober: Engine,
        upkeep: Upkeep,
        policies: Policies,
    ) -> None:
        self._writer = writer
        self._readers = readers
        self._current = current  # for what someone may ask for who has just been told of it
        self._prober = prober
        self._upkeep = upkeep
        self._policies = policies
        self._edition: Edition | None = None  # of the schema that is known to be the right one
        self._begun = False  # a release's migration must not stop the servers of the one before
        self._read_edition: Edition | None = None

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Without entries it tells whether any could be written. What is older than the retention is parked."""
        try:
            edition = self._edition
            if not entries or edition is None:
                edition = self._edition = await self._checked(self._writer)
            if entries:
                statement = insertion(edition, entries, self._policies.retention)
                [(parked, late)] = await self._writer.run(*statement)
                self._tell(parked, late)
        except StoreUnavailableError:
            self._edition = None  # it may be another one when it is back
            raise

    async def _checked(self, engine: Engine) -> Edition:
        edition = await check(engine, or_newer=self._begun)
        self._begun = True
        return edition

    def _tell(self, parked: int, late: int) -> None:
        if parked:
            log.warning("entries older than the ledger keeps are parked", entries=parked, table="ledger_parked")
        if late:
            self._upkeep.hurry()

    async def look(self) -> str | None:
        """What keeps entries from being written, in a line; None where nothing does."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await self._checked(self._prober)
        except StoreUnavailableError as error:
            self._edition = None
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
        edition = self._read_edition
        if edition is None:  # by whoever answers reads: what is written has a check of its own
            edition = self._read_edition = await check(self._readers, or_newer=self._begun)

        async def read(connection: AsyncConnection) -> Sequence[Any]:
            late = await rows_of(connection, *usage.late(asked)) if edition is Edition.COMMUNITY else None
            behind = None if late is None else [slot for (slot,) in late]
            return await rows_of(connection, *usage.statement(organisation, asked, behind))

        rows = await (self._current if asked.to_date else self._readers).snapshot(read)
        return await asyncio.to_thread(lambda: [usage.cell(row) for row in rows])

    async def _entries(self, statement: Any, asked: dict[str, str]) -> Sequence[LedgerEntry]:
        values = {name: stored(value) for name, value in asked.items()}
        return [_entry(row) for row in await self._current.run(statement, values)]


@asynccontextmanager
async def open_timescale_ledger(
    url: str,
    *,
    replica_url: str | None = None,
    max_lag_s: float = MAX_LAG_S,
    pool_size: int = POOL_SIZE,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
    policies: Policies | None = None,
) -> AsyncIterator[TimescaleLedger]:
    """Connects when it is first used. `pool_size`: connections for reads; one more writes, one looks, one keeps up.
    Reports and lists are read from the replica, as long as it is no more than `max_lag_s` behind. Raises ValueError
    for an address that is none."""
    policies = policies or Policies()
    async with AsyncExitStack() as stack:

        def engine(address: str, size: int, timeout_s: float | None) -> Awaitable[Engine]:
            opening = open_engine(address, pool_size=size, statement_timeout_s=timeout_s)
            return stack.enter_async_context(opening)

        writer = await engine(url, 1, statement_timeout_s)
        current = await engine(url, pool_size, statement_timeout_s)
        prober = await engine(url, 1, LOOK_TIMEOUT_S)
        upkeep = await stack.enter_async_context(running_upkeep(await engine(url, 1, None), policies, check))
        readers: Engine | Readers = current
        if replica_url is not None:
            replica = await engine(replica_url, pool_size, statement_timeout_s)
            look_at = (await engine(url, 1, LOOK_TIMEOUT_S), await engine(replica_url, 1, LOOK_TIMEOUT_S))
            readers = await stack.enter_async_context(watched_readers(current, replica, look_at, max_lag_s))
        yield TimescaleLedger(writer, readers, current, prober, upkeep, policies)


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
        "label": None if where.label is None else label_text(dict([where.label])),
        "outcome": None if where.outcome is None else str(where.outcome),
    }
    return {name: value for name, value in found.items() if value is not None}


_READ: dict[str, Callable[[Any], object]] = {
    "time": lambda time: time.astimezone(UTC),
    "corrected_at": lambda time: time.astimezone(UTC),
    "outcome": Outcome,
    "cost_source": CostSource,
    "labels": lambda labels: {plain(name): plain(value) for name, value in labels.items()},
}


def _entry(row: Sequence[Any]) -> LedgerEntry:
    values = dict(zip(NAMES, row, strict=True))
    for name in TEXTS:
        if values[name] is not None:
            values[name] = plain(values[name])
    for name, read in _READ.items():
        if values[name] is not None:
            values[name] = read(values[name])
    return LedgerEntry(**values)
