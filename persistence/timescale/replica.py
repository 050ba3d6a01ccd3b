"""Reads that may be a moment behind: on a replica while it keeps up, on the primary while it does not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import structlog
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ..ports import StoreUnavailableError
from .engine import Engine

MAX_LAG_S = 5.0
WATCH_INTERVAL_S = 0.5
LOOK_TIMEOUT_S = 2.0

_WRITTEN = text("SELECT (pg_current_wal_lsn() - pg_lsn '0/0')::bigint")
_REPLAYED = text("SELECT pg_is_in_recovery(), (pg_last_wal_replay_lsn() - pg_lsn '0/0')::bigint")

T = TypeVar("T")

log = structlog.get_logger("ledger")


class Lag:
    """How long a replica has been behind its primary, by what the one had written and the other has replayed. The time
    of the last replayed transaction would not do: it grows old while nothing is written, and stays young for a while
    when the replica is cut off."""

    def __init__(self, max_lag_s: float) -> None:
        self._max_lag_s = max_lag_s
        self._written: deque[tuple[float, int]] = deque(maxlen=round(max_lag_s / WATCH_INTERVAL_S) + 2)

    def write(self, at: float, position: int) -> None:
        self._written.append((at, position))

    def is_too_long(self, at: float, replayed: int) -> bool:
        """Against the last that is known of a primary that is away: no other copy is newer than that."""
        while self._written and self._written[0][1] <= replayed:
            self._written.popleft()
        return bool(self._written) and at - self._written[0][0] > self._max_lag_s


class Readers:
    """As `Engine`, for statements that only read. `watch` is to be run all the while."""

    def __init__(self, primary: Engine, replica: Engine, look_at: tuple[Engine, Engine], max_lag_s: float) -> None:
        self._primary = primary
        self._replica = replica
        self._look_at_primary, self._look_at_replica = look_at
        self._lag = Lag(max_lag_s)
        self._trouble: str | None = "not looked at yet"
        self._is_away = asyncio.Event()

    async def run(self, statement: TextClause, values: Mapping[str, object] | None = None) -> Sequence[Any]:
        return await self._read(lambda engine: engine.run(statement, values))

    async def snapshot(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        return await self._read(lambda engine: engine.snapshot(work))

    async def _read(self, read: Callable[[Engine], Awaitable[T]]) -> T:
        if self._trouble is None:
            with suppress(StoreUnavailableError):  # whatever it is, the primary may answer
                return await self._unless_away(read(self._replica))
        return await read(self._primary)

    async def _unless_away(self, reading: Awaitable[T]) -> T:
        """Given up when the replica turns out to answer nothing: a long report's own timeout would be far off. Raises
        StoreUnavailableError then."""
        read = asyncio.ensure_future(reading)
        away = asyncio.create_task(self._is_away.wait())
        try:
            await asyncio.wait({read, away}, return_when=asyncio.FIRST_COMPLETED)
            if read.done():
                return read.result()
            raise StoreUnavailableError("the replica answers no more")
        finally:
            read.cancel()
            away.cancel()
            await asyncio.gather(read, away, return_exceptions=True)

    async def watch(self) -> None:
        while True:
            trouble = await self._look()
            if trouble != self._trouble:
                self._trouble = trouble
                told = "reports are read from the replica" if trouble is None else "reports are read from the primary"
                log.info(told, reason=trouble) if trouble is None else log.warning(told, reason=trouble)
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _look(self) -> str | None:
        """What is wrong with the replica; None where nothing is."""
        written, replayed = await asyncio.gather(
            _answer(self._look_at_primary, _WRITTEN), _answer(self._look_at_replica, _REPLAYED)
        )
        now = asyncio.get_running_loop().time()
        if not isinstance(written, str):
            self._lag.write(now, written[0])
        if isinstance(replayed, str):
            self._is_away.set()
            return f"the replica: {replayed}"
        self._is_away.clear()
        if not replayed[0]:
            return "the replica follows no primary"
        return "the replica is behind" if self._lag.is_too_long(now, replayed[1] or 0) else None


async def _answer(engine: Engine, statement: TextClause) -> tuple[Any, ...] | str:
    """A row, or why there is none."""
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            [row] = await engine.run(statement)
    except StoreUnavailableError as error:
        return str(error)
    except TimeoutError:
        return f"no answer within {LOOK_TIMEOUT_S:g} s"
    return tuple(row)


@asynccontextmanager
async def watched_readers(
    primary: Engine, replica: Engine, look_at: tuple[Engine, Engine], max_lag_s: float
) -> AsyncIterator[Readers]:
    """`look_at`: connections to both of them that no report keeps busy."""
    readers = Readers(primary, replica, look_at, max_lag_s)
    task = asyncio.create_task(readers.watch(), name="ledger-replica")
    try:
        yield readers
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
