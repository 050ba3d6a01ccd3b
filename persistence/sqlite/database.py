"""One SQLite file: one thread that writes, a few that read."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from ..migrations.sqlite import check
from ..ports import StoreUnavailableError

REPORT_READERS = 2
CACHE_KIB = 2_000  # SQLite's own default
REPORT_CACHE_KIB = 32_000  # what is sorted for a report stays in memory
READ_TIMEOUT_S = 15.0  # one caller's long read must not keep the readers from the others
BUSY_TIMEOUT_S = 5.0

_STEPS = 10_000  # of SQLite's machine, between two looks at the clock

Parameters = Mapping[str, str | int | None]
T = TypeVar("T")


class Database:
    """The embedded default's one file, shared by the stores in it. Opened by `open_database`.

    Every method raises StoreUnavailableError (disk full, locked, I/O, closed), and ValueError for what the tables
    refuse.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._closed = False
        self._lookups = _Readers([self._connect()])  # of their own: completions wait for them, not for anyone's report
        self._reports = _Readers([self._connect(cache_kib=REPORT_CACHE_KIB) for _ in range(REPORT_READERS)])
        self._writer = _Writer(self._connect())

    def _connect(self, cache_kib: int = CACHE_KIB) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=rw",
            uri=True,
            isolation_level=None,
            timeout=self._busy_timeout_s,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{cache_kib}")
        return connection

    async def write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` on the writer's thread, after those before it. Its statements commit one by one, unless it opens a
        `transaction`. Once handed over it runs, whatever becomes of the caller."""
        with self._told_apart():
            return await self._writer.run(job)

    async def look_up(self, statement: str, parameters: Parameters) -> list[Any]:
        """The rows of a quick read, by an index."""
        with self._told_apart():
            return await self._lookups.read(statement, parameters)

    async def report(self, statement: str, parameters: Parameters) -> list[Any]:
        """The rows of a read that may take a while. It is broken off READ_TIMEOUT_S after it was asked for, or when
        its caller is cancelled."""
        with self._told_apart():
            return await self._reports.read(statement, parameters)

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        if self._closed:
            raise StoreUnavailableError(f"the database {self._path} is closed")
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


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of its statements, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@dataclass(slots=True)
class _Read:
    """`until`: monotonic seconds. `ended`: nobody waits for it any more."""

    statement: str
    parameters: Parameters
    until: float
    ended: bool = False


class _Readers:
    """Threads that read, one for each of the given connections."""

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._closing = False
        self._connections = connections
        self._idle = deque(connections)  # as many as threads: a thread always finds one
        self._threads = ThreadPoolExecutor(len(connections), thread_name_prefix="ledger-reader")

    async def read(self, statement: str, parameters: Parameters) -> list[Any]:
        read = _Read(statement, parameters, time.monotonic() + READ_TIMEOUT_S)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._fetch, read)
        finally:
            read.ended = True  # also where its caller has gone

    def _fetch(self, read: _Read) -> list[Any]:
        connection = self._idle.pop()
        connection.set_progress_handler(lambda: self._closing or read.ended or time.monotonic() > read.until, _STEPS)
        try:
            return connection.execute(read.statement, read.parameters).fetchall()
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
        self._jobs: SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="database-writer", daemon=True)
        self._thread.start()

    async def run(self, job: Callable[[sqlite3.Connection], T]) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((job, done))
        return await done

    def close(self) -> None:
        """Blocks until the jobs that were handed over are done."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        while (handed := self._jobs.get()) is not None:
            job, done = handed
            result, failure = None, None
            try:
                result = job(self._connection)
            except Exception as error:  # noqa: BLE001  # whatever it is, who waits must hear of it
                failure = error
            done.get_loop().call_soon_threadsafe(_settle, done, result, failure)


def _settle(future: asyncio.Future[Any], result: Any, failure: Exception | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


@asynccontextmanager
async def open_database(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> AsyncIterator[Database]:
    """The file `path`. `busy_timeout_s`: how long to wait for another process's lock.

    Raises SchemaVersionError unless the file has this release's schema (see `persistence.migrations.sqlite.migrate`).
    """
    database = await asyncio.to_thread(_open, path, busy_timeout_s)
    try:
        yield database
    finally:
        await database.close()


def _open(path: Path, busy_timeout_s: float) -> Database:
    check(path)
    with _told_apart(path):
        return Database(path, busy_timeout_s=busy_timeout_s)


@contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    """A value that a table refuses is the caller's mistake; any other failure is the file's."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError, OverflowError) as error:
        raise ValueError(f"the database can't hold this: {error}") from error
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"the database {path}: {error}") from error
