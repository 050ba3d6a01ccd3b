"""The embedded queue: a table of the one SQLite file, worked on by the process that holds it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ..ports import Delivery
from ..queue_records import MAX_REASON, RETRY_DELAYS_S, Job, QueueDepth
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

LOOK_AGAIN_S = 2.0
"""After which a worker looks for what the command line has put there."""
MAX_TRACES = 10_000
"""They are remembered and not stored: a restart ends a trace."""

_COLUMNS = "id, kind, body, created_at, failures, reason"
_PUBLISH = f"INSERT INTO jobs ({_COLUMNS}, due, queue) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"  # noqa: S608
_DUE = f"SELECT {_COLUMNS} FROM jobs WHERE queue = :queue AND due <= :now ORDER BY due, id LIMIT :limit"  # noqa: S608
_NEXT = "SELECT min(due) FROM jobs WHERE queue = :queue AND due > :now"
_PARKED = f"SELECT {_COLUMNS} FROM jobs WHERE queue = :queue AND due IS NULL ORDER BY id LIMIT :limit"  # noqa: S608
_REST = "UPDATE jobs SET failures = failures + 1, reason = ?, due = ? WHERE id = ?"
_DONE = "DELETE FROM jobs WHERE id = ?"
_REPLAY = "UPDATE jobs SET failures = 0, reason = NULL, due = ? WHERE id = ? AND due IS NULL"
_DROP = "DELETE FROM jobs WHERE id = ? AND due IS NULL"
_DEPTH = """
    SELECT coalesce(sum(due <= :now), 0), coalesce(sum(due > :now), 0), coalesce(sum(due IS NULL), 0),
        min(CASE WHEN due <= :now THEN created_at END)
    FROM jobs WHERE queue = :queue
"""


class SQLiteQueue:
    """Implements `ports.JobQueue`. What is in hand is known to this process alone: there is no other that works on the
    file. `now` is aware. Queues of different names have nothing to do with each other."""

    def __init__(self, database: Database, now: Callable[[], datetime], name: str = "") -> None:
        self._database = database
        self._now = now
        self._name = name
        self.in_hand: set[str] = set()
        self._looking = asyncio.Lock()
        self._left_meanwhile: set[str] = set()  # what left a worker's hands while one looks: it may be seen still
        self._changed = asyncio.Event()
        self._traces: OrderedDict[str, str] = OrderedDict()  # of jobs that were published here

    async def publish(self, jobs: Sequence[Job]) -> None:
        self._traces.update((job.id, job.trace) for job in jobs if job.trace is not None)
        while len(self._traces) > MAX_TRACES:
            self._traces.popitem(last=False)
        rows = [(*_row(job), self._stamp(), self._name) for job in jobs]
        await self._database.write(lambda connection: _publish(connection, rows))
        self._changed.set()

    @asynccontextmanager
    async def work(self, *, prefetch: int) -> AsyncIterator[AsyncGenerator[Sequence[Delivery], None]]:
        mine: set[str] = set()
        try:
            yield self._batches(mine, prefetch)
        finally:
            for job_id in tuple(mine):
                self.let_go(job_id, mine)

    async def _batches(self, mine: set[str], prefetch: int) -> AsyncGenerator[Sequence[Delivery], None]:
        while True:
            self._changed.clear()
            room = prefetch - len(mine)
            if room and (jobs := await self._take(room, mine)):
                yield [_SQLiteDelivery(self, job, mine) for job in jobs]
            else:
                await self._wait()

    async def _take(self, room: int, mine: set[str]) -> Sequence[Job]:
        async with self._looking:
            self._left_meanwhile.clear()
            asked: Parameters = {"queue": self._name, "now": self._stamp(), "limit": room + len(self.in_hand)}
            found = [self._traced(_job(row)) for row in await self._database.look_up(_DUE, asked)]
            others = self.in_hand | self._left_meanwhile
            jobs = [job for job in found if job.id not in others][:room]
            mine.update(job.id for job in jobs)
            self.in_hand.update(job.id for job in jobs)
            return jobs

    def _traced(self, job: Job) -> Job:
        trace = self._traces.get(job.id)
        return job if trace is None else replace(job, trace=trace)

    async def _wait(self) -> None:
        """Until a job is due, or something has changed here."""
        rows = await self._database.look_up(_NEXT, {"queue": self._name, "now": self._stamp()})
        due = rows[0][0]
        wait_s = LOOK_AGAIN_S if due is None else min(LOOK_AGAIN_S, max(0.0, (due - self._stamp()) / 1000))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._changed.wait()

    async def parked(self, *, limit: int) -> Sequence[Job]:
        return [_job(row) for row in await self._database.look_up(_PARKED, {"queue": self._name, "limit": limit})]

    async def replay(self, job_ids: Collection[str]) -> Set[str]:
        found = {job_id for job_id in job_ids if await self._write(_REPLAY, self._stamp(), job_id)}
        self._changed.set()
        return found

    async def drop(self, job_ids: Collection[str]) -> Set[str]:
        return {job_id for job_id in job_ids if await self._write(_DROP, job_id)}

    async def depth(self) -> QueueDepth:
        """What is in hand is as old as what waits behind it."""
        asked: Parameters = {"queue": self._name, "now": self._stamp()}
        ready, resting, parked, oldest = (await self._database.look_up(_DEPTH, asked))[0]
        waiting = max(0, ready - len(self.in_hand))
        return QueueDepth(waiting, resting, parked, EPOCH + oldest * MILLISECOND if waiting else None)

    async def settle(self, job: Job, mine: set[str], statement: str, *values: str | int | None) -> None:
        """What a delivery does. Where it can't be written the job is let go all the same, and comes again."""
        try:
            await self._write(statement, *values)
        finally:
            self.let_go(job.id, mine)

    def let_go(self, job_id: str, mine: set[str]) -> None:
        mine.discard(job_id)
        self.in_hand.discard(job_id)
        self._left_meanwhile.add(job_id)
        self._changed.set()

    def due_again(self, failures: int) -> int | None:
        """When a job comes again after so many failures; None where it is parked."""
        if failures > len(RETRY_DELAYS_S):
            return None
        return milliseconds(self._now() + timedelta(seconds=RETRY_DELAYS_S[failures - 1]))

    async def _write(self, statement: str, *values: str | int | None) -> bool:
        return await self._database.write(lambda connection: connection.execute(statement, values).rowcount > 0)

    def _stamp(self) -> int:
        return milliseconds(self._now())


class _SQLiteDelivery:
    """Implements `ports.Delivery`."""

    def __init__(self, queue: SQLiteQueue, job: Job, mine: set[str]) -> None:
        self.job = job
        self._queue = queue
        self._mine = mine

    async def done(self) -> None:
        await self._queue.settle(self.job, self._mine, _DONE, self.job.id)

    async def failed(self, reason: str) -> None:
        due = self._queue.due_again(self.job.failures + 1)
        await self._queue.settle(self.job, self._mine, _REST, reason[:MAX_REASON], due, self.job.id)

    async def refused(self, reason: str) -> None:
        await self._queue.settle(self.job, self._mine, _REST, reason[:MAX_REASON], None, self.job.id)

    async def put_back(self) -> None:
        self._queue.let_go(self.job.id, self._mine)


def _publish(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    with transaction(connection):
        connection.executemany(_PUBLISH, rows)


def _row(job: Job) -> tuple[str | int | None, ...]:
    return job.id, job.kind, job.body, milliseconds(job.created_at), job.failures, job.reason


def _job(row: Sequence[Any]) -> Job:
    identity, kind, body, created_at, failures, reason = row
    return Job(identity, kind, body, EPOCH + created_at * MILLISECOND, failures, reason)
