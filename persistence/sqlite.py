"""The embedded ledger: one SQLite file, one thread that writes, a few that read."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from itertools import chain, groupby
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import orjson

from .migrations.sqlite import check
from .ports import StoreUnavailableError
from .records import CompletionFilter, CostSource, Cursor, LedgerEntry, Outcome, UsageTotals

REPORT_READERS = 2
READ_TIMEOUT_S = 15.0  # one caller's long read must not keep the readers from the others
_STEPS = 10_000  # of SQLite's machine, between two looks at the clock
BUSY_TIMEOUT_S = 5.0

_Parameters = Mapping[str, str | int | None]
_Row = tuple[str | int | None, ...]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_COST_DIGITS = 60  # on either side of the point, so that every sum is exact in _EXACT
_EXACT = Context(prec=200)

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
_TOTALS = """
    SELECT
        count(DISTINCT completion_id), count(*), count(*) FILTER (WHERE outcome = 'failed'),
        coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), coalesce(sum(cached_input_tokens), 0),
        coalesce(sum(cache_write_tokens), 0), coalesce(sum(reasoning_tokens), 0),
        coalesce(decimal_sum(cost), '0'), count(*) - count(cost), coalesce(sum(estimated), 0)
    FROM ledger_entries
    WHERE organisation = :organisation AND time >= :since AND time < :until
"""


class SQLiteLedger:
    """`persistence.ports.LedgerStore` in one file. Opened by `open_sqlite_ledger`.

    Every method raises StoreUnavailableError (disk full, locked, I/O, closed), and ValueError for what it can't hold.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._closed = False
        self._lookups = _Readers([self._connect()])  # of their own: completions wait for them, not for anyone's report
        self._reports = _Readers([self._connect() for _ in range(REPORT_READERS)])
        self._writer = _Writer(self._connect())

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=self._busy_timeout_s,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.create_aggregate("decimal_sum", 1, _DecimalSum)  # type: ignore[arg-type]  # typeshed wants int
        return connection

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        with self._told_apart():
            await self._writer.append(entries)

    async def completion(self, organisation: str, completion_id: str) -> Sequence[LedgerEntry]:
        asked = {"organisation": organisation, "completion_id": completion_id}
        rows = await self._read(self._lookups, _COMPLETION, asked)
        return [_entry(row) for row in rows]

    async def completion_by_key(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        asked = {"organisation": organisation, "idempotency_key": idempotency_key}
        rows = await self._read(self._lookups, _BY_KEY, asked)
        return [_entry(row) for row in rows]

    async def completions(
        self, organisation: str, *, where: CompletionFilter, limit: int, after: Cursor | None = None
    ) -> Sequence[Sequence[LedgerEntry]]:
        """Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked = _asked(where, after)
        conditions = [condition for name, condition in _CONDITIONS.items() if asked[name] is not None]
        statement = _PAGE.format(conditions=" AND ".join(["m.organisation = :organisation", *conditions]))
        rows = await self._read(self._reports, statement, {**asked, "organisation": organisation, "limit": limit})
        entries = [_entry(row) for row in rows]
        return [list(group) for _, group in groupby(entries, key=lambda entry: (entry.time, entry.completion_id))]

    async def usage_totals(self, organisation: str, *, since: datetime, until: datetime) -> UsageTotals:
        span = {"since": _milliseconds(since), "until": _milliseconds(until)}
        rows = await self._read(self._reports, _TOTALS, {"organisation": organisation, **span})
        totals = UsageTotals(*rows[0])
        return replace(totals, cost=Decimal(totals.cost))  # it comes as text

    async def _read(self, readers: _Readers, statement: str, parameters: _Parameters) -> list[Any]:
        with self._told_apart():
            return await readers.read(statement, parameters)

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        if self._closed:
            raise StoreUnavailableError(f"the ledger {self._path} is closed")
        with _told_apart(self._path):
            yield

    async def close(self) -> None:
        """Writes that were handed over are carried out; reads are broken off."""
        self._closed = True
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.close()
        self._lookups.close()
        self._reports.close()


class _Readers:
    """Threads that read, one for each of the given connections."""

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._closing = False
        self._connections = connections
        self._idle = deque(connections)  # as many as threads: a thread always finds one
        self._threads = ThreadPoolExecutor(len(connections), thread_name_prefix="ledger-reader")

    async def read(self, statement: str, parameters: _Parameters) -> list[Any]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, statement, parameters)

    def _fetch(self, statement: str, parameters: _Parameters) -> list[Any]:
        connection = self._idle.pop()
        until = time.monotonic() + READ_TIMEOUT_S
        connection.set_progress_handler(lambda: self._closing or time.monotonic() > until, _STEPS)
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            self._idle.append(connection)

    def close(self) -> None:
        """Breaks off what is being read, and what waits for its turn."""
        self._closing = True
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()


class _Writer:
    """The thread that writes. A hop to it costs half of one to a ThreadPoolExecutor, and each commit pays for one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._jobs: SimpleQueue[tuple[Sequence[LedgerEntry], asyncio.Future[None]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="ledger-writer", daemon=True)
        self._thread.start()

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.put((entries, committed))
        await committed

    def close(self) -> None:
        """Blocks until the jobs that were handed over are done."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            entries, committed = job
            failure = None
            try:
                self._commit(entries)
            except Exception as error:  # noqa: BLE001  # whatever it is, who waits must hear of it
                failure = error
            committed.get_loop().call_soon_threadsafe(_settle, committed, failure)

    def _commit(self, entries: Sequence[LedgerEntry]) -> None:
        rows = [_row(entry) for entry in entries]
        if len(rows) <= _ROWS:
            self._insert(rows)  # a transaction of its own; each statement more would change threads twice more
            return
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(rows), _ROWS):
                self._insert(rows[start : start + _ROWS])
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _insert(self, rows: Sequence[_Row]) -> None:
        if rows:
            statement = _INSERT.format(rows=", ".join([_ROW] * len(rows)))
            self._connection.execute(statement, [*chain.from_iterable(rows)])


def _settle(future: asyncio.Future[None], failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(None)
    else:
        future.set_exception(failure)


@asynccontextmanager
async def open_sqlite_ledger(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> AsyncIterator[SQLiteLedger]:
    """The ledger in the file `path`. `busy_timeout_s`: how long to wait for another process's lock.

    Raises SchemaVersionError unless the file has this release's schema (see `persistence.migrations.sqlite.migrate`).
    """
    ledger = await asyncio.to_thread(_open, path, busy_timeout_s)
    try:
        yield ledger
    finally:
        await ledger.close()


def _open(path: Path, busy_timeout_s: float) -> SQLiteLedger:
    check(path)
    with _told_apart(path):
        return SQLiteLedger(path, busy_timeout_s=busy_timeout_s)


@contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    """A value that the table refuses is the caller's mistake; any other failure is the store's."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, OverflowError) as error:
        raise ValueError(f"the ledger can't hold this: {error}") from error
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"the ledger {path}: {error}") from error


class _DecimalSum:
    """An exact sum of decimal texts; NULL adds nothing."""

    def __init__(self) -> None:
        self._sum = Decimal(0)

    def step(self, value: str | None) -> None:
        if value is not None:
            self._sum = _EXACT.add(self._sum, Decimal(value))

    def finalize(self) -> str:
        return str(self._sum)


def _milliseconds(time: datetime) -> int:
    """Milliseconds since 1970, rounded up: so `time >= since` and `time < until` hold for any microsecond."""
    if time.tzinfo is None:
        raise ValueError("times must be aware")
    return -((_EPOCH - time) // _MILLISECOND)


def _asked(where: CompletionFilter, after: Cursor | None) -> dict[str, str | int | None]:
    """The values of _CONDITIONS; None where one does not apply."""
    return {
        "since": None if where.since is None else _milliseconds(where.since),
        "until": None if where.until is None else _milliseconds(where.until),
        "after_time": None if after is None else _milliseconds(after.time),
        "after_id": None if after is None else after.completion_id,
        "provider": where.provider,
        "model": where.model,
        "end_user": where.end_user,
        "label": None if where.label is None else _label_line(*where.label),
        "outcome": None if where.outcome is None else str(where.outcome),
    }


def _cost_text(cost: Decimal) -> str:
    text = str(cost)
    if not cost.is_finite() or len(text) > _MAX_COST_DIGITS or abs(cost.adjusted()) > _MAX_COST_DIGITS:
        raise ValueError("a cost must be a number of at most 60 digits")
    return text


def _labels_text(labels: Mapping[str, str]) -> str:
    """JSON with a pair on each line. A line break within a text is escaped, so `_label_line` finds whole pairs only."""
    if not labels:
        return "{}"
    try:
        return orjson.dumps(dict(labels), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError(f"labels are pairs of texts: {error}") from error


def _label_line(name: str, value: str) -> str:
    return _labels_text({name: value})[1:-2]


def _row(entry: LedgerEntry) -> _Row:
    """In the order of LedgerEntry's fields."""
    if entry.time.microsecond % 1000:
        raise ValueError("an entry's time must be a whole millisecond")
    return (
        _milliseconds(entry.time),
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
        _labels_text(entry.labels),
    )


def _entry(row: Sequence[Any]) -> LedgerEntry:
    values = dict(zip(_NAMES, row, strict=True))
    cost = values["cost"]
    values.update(
        time=_EPOCH + values["time"] * _MILLISECOND,
        outcome=Outcome(values["outcome"]),
        cost=None if cost is None else Decimal(cost),
        cost_source=CostSource(values["cost_source"]),
        estimated=bool(values["estimated"]),
        cached=bool(values["cached"]),
        streamed=bool(values["streamed"]),
        labels=orjson.loads(values["labels"]),
    )
    return LedgerEntry(**values)
