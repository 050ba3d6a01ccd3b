"""Folds what is over, step by step, while entries come and reports are read.

A period stays open until its last step, so that nobody reads what is half written. It is claimed first; an entry that
comes meanwhile takes the claim away, and another process's claim does too: then the steps left are not taken, and the
period is folded anew. Whole days are summed up of their periods by themselves, in the same way.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog

from ..ports import StoreUnavailableError
from .database import Database, Parameters, transaction
from .rollup import (
    CELLS,
    DAY_MS,
    FEW_CELLS,
    FOLDED,
    LIVE,
    OF_DAYS,
    PERIOD_MS,
    PUT,
    CellSum,
    Key,
    Row,
    Tier,
    cell_of,
    folded_key,
    within,
    written,
)
from .times import milliseconds

log = structlog.get_logger("usage")

INTERVAL_S = 1.0
AFTER = timedelta(minutes=15)
"""Attempts that began before a period's end are booked for a while."""

REST = 4.0
"""Of each stretch of work beside the server: as many times its length. One processor is shared with completions."""

_STRETCH = 50  # cells: about a millisecond
_AT_ONCE = 2_000
_STEP = 200  # of a transaction: a completion that waits for the writer waits for no more

_NEXT = f"""
    SELECT organisation, period, 0 FROM usage_open
    WHERE period <= :until AND (period, organisation) > (:after, :after_organisation)
    UNION ALL
    SELECT organisation, day, 1 FROM usage_open_days AS d
    WHERE (day, organisation) > (:after, :after_organisation) AND NOT EXISTS (
        SELECT 1 FROM usage_open AS o
        WHERE o.organisation = d.organisation AND o.period >= d.day AND o.period < d.day + {DAY_MS}
    )
    ORDER BY 2, 1 LIMIT 1
"""  # noqa: S608  # built of the texts in this file: values are bound, here and below
_CLAIM = "INSERT OR REPLACE INTO usage_claims VALUES (:organisation, :start, :of_day, :token)"
_CLAIMED = """
    SELECT 1 FROM usage_claims
    WHERE organisation = :organisation AND start = :start AND of_day = :of_day AND token = :token
"""
_RELEASE = "DELETE FROM usage_claims WHERE organisation = :organisation AND start = :start AND of_day = :of_day"
_CLOSE = "DELETE FROM usage_open WHERE organisation = :organisation AND period = :start"
_CLOSE_DAY = "DELETE FROM usage_open_days WHERE organisation = :organisation AND day = :start"
_OPEN_DAY = "INSERT INTO usage_open_days VALUES (:organisation, :start) ON CONFLICT DO NOTHING"

T = TypeVar("T")

_OF_PERIODS = tuple(tier for tier in FOLDED if tier.width_ms != DAY_MS)
_SUMMED_IN = {LIVE.number: _OF_PERIODS} | {source.number: (day,) for day, source in OF_DAYS.items()}


@dataclass(frozen=True, slots=True)
class _Claim:
    """A period, or a day, that this is folding."""

    organisation: str
    start: int
    of_day: bool
    token: int

    @property
    def parameters(self) -> Parameters:
        return {
            "organisation": self.organisation,
            "start": self.start,
            "of_day": int(self.of_day),
            "token": self.token,
        }

    @property
    def width_ms(self) -> int:
        return DAY_MS if self.of_day else PERIOD_MS

    @property
    def sources(self) -> Sequence[Tier]:
        """What is summed up."""
        return tuple(OF_DAYS.values()) if self.of_day else (LIVE,)

    @property
    def tiers(self) -> Sequence[Tier]:
        """Where its sums belong."""
        return tuple(OF_DAYS) if self.of_day else _OF_PERIODS

    def take(self, connection: sqlite3.Connection) -> None:
        connection.execute(_CLAIM, self.parameters)

    def put(self, connection: sqlite3.Connection, rows: Sequence[tuple[Key, Row]]) -> bool:
        """False where the claim is lost."""
        with transaction(connection):
            if connection.execute(_CLAIMED, self.parameters).fetchone() is None:
                return False
            connection.executemany(PUT, [(self.organisation, *key, *row) for key, row in rows])
            return True

    def close(self, connection: sqlite3.Connection) -> bool:
        """False where the claim is lost. The day of a period is then to be summed up anew."""
        with transaction(connection):
            if connection.execute(_CLAIMED, self.parameters).fetchone() is None:
                return False
            connection.execute(_RELEASE, self.parameters)
            connection.execute(_CLOSE_DAY if self.of_day else _CLOSE, self.parameters)
            if not self.of_day:
                day = {**self.parameters, "start": self.start - self.start % DAY_MS, "of_day": 1}
                connection.execute(_OPEN_DAY, day)
                connection.execute(_RELEASE, day)
            return True


class Folding:
    """Of one database. Every method raises as `Database` does."""

    def __init__(self, database: Database, *, rest: float) -> None:
        """`rest`: after each stretch of work, as many times its length; 0 where nobody waits."""
        self._database = database
        self._rest = rest

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            with suppress(StoreUnavailableError):  # what is not folded is read as it is, only slower
                await self.fold(datetime.now(UTC) - AFTER)
            await asyncio.sleep(INTERVAL_S)

    async def fold(self, until: datetime) -> None:
        """All that is open and has ended by then. What an entry opens meanwhile may stay open."""
        newest = milliseconds(until) - PERIOD_MS
        after: tuple[int, str] = (-(2**62), "")
        while True:
            asked: Parameters = {"until": newest, "after": after[0], "after_organisation": after[1]}
            found = await self._database.report(_NEXT, asked)
            if not found:
                return
            organisation, start, of_day = found[0]
            after = start, organisation
            try:
                folded = await self._fold(_Claim(organisation, start, bool(of_day), secrets.randbits(62)))
            except ValueError as error:  # it is read as it is, only slower; the others need not be
                log.warning("usage can't be summed up", organisation=organisation, start=start, reason=str(error))
                continue
            if folded and not of_day:
                after = start - start % DAY_MS - 1, ""  # its day may be next

    async def _fold(self, claim: _Claim) -> bool:
        """False where the claim was lost."""
        await self._database.write(claim.take)
        changed = await self._changed(claim)
        for first in range(0, len(changed), _STEP):
            rows = changed[first : first + _STEP]
            began = time.monotonic()
            if not await self._database.write(partial(claim.put, rows=rows)):
                return False
            await asyncio.sleep((time.monotonic() - began) * self._rest)
        return await self._database.write(claim.close)

    async def _changed(self, claim: _Claim) -> list[tuple[Key, Row]]:
        """What an earlier fold has not put there already. Cells are never fewer than before."""
        sums: dict[Key, CellSum] = {}
        standing: dict[Key, Row] = {}
        changed: list[tuple[Key, Row]] = []

        def add(row: Row) -> None:
            key, cell = cell_of(row)
            for tier in _SUMMED_IN[key[0]]:
                sums.setdefault(folded_key(tier, key), CellSum()).add(cell)

        def keep(row: Row) -> None:
            key, sum_row = written(row)
            standing[key] = sum_row

        def compare(cell: tuple[Key, CellSum]) -> None:
            key, row = cell[0], cell[1].row()
            if standing.get(key) != row:
                changed.append((key, row))

        async for rows in self._cells(claim, claim.sources):
            await self._in_stretches(rows, add)
        async for rows in self._cells(claim, claim.tiers):
            await self._in_stretches(rows, keep)
        await self._in_stretches(list(sums.items()), compare)
        return changed

    async def _cells(self, claim: _Claim, tiers: Sequence[Tier]) -> AsyncIterator[Sequence[Row]]:
        """All of them, at once where they are few, else bit by bit."""
        asked = within(claim.organisation, tiers, claim.start, claim.width_ms)
        ((few,),) = await self._database.report(FEW_CELLS, {**asked, "few": _AT_ONCE})
        if few:
            yield await self._database.report(CELLS, asked)
            return
        for tier in tiers:
            for slot in range(claim.start, claim.start + claim.width_ms, tier.width_ms):
                yield await self._database.report(CELLS, within(claim.organisation, [tier], slot, tier.width_ms))

    async def _in_stretches(self, cells: Sequence[T], work: Callable[[T], None]) -> None:
        if len(cells) <= _STRETCH:
            deque(map(work, cells), maxlen=0)
        else:
            ended = threading.Event()
            try:
                await asyncio.to_thread(self._with_rests, cells, work, ended)
            finally:
                ended.set()  # a thread does not end with its task by itself, and a process waits for its threads

    def _with_rests(self, cells: Sequence[T], work: Callable[[T], None], ended: threading.Event) -> None:
        """On a thread of its own, which shares the interpreter with the server."""
        for first in range(0, len(cells), _STRETCH):
            began = time.monotonic()
            deque(map(work, cells[first : first + _STRETCH]), maxlen=0)
            if ended.wait((time.monotonic() - began) * self._rest):
                return
