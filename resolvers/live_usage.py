"""Usage as it grows: whole reports of the latest buckets, again and again. One poller for each distinct query of an
organisation looks at the ledger, whoever listens to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import TracebackType

import structlog

from persistence.usage_records import Dimension, UsageFilter

from . import usage
from .beside import end
from .calendar import Bucket, boundaries
from .errors import BadUserInputError, RateLimitedError, ServiceUnavailableError, UnauthenticatedError
from .ledger import Ledger
from .principal import Principal
from .usage import UsageQuery, UsageReport

MAX_BUCKETS = 200
MIN_INTERVAL_MS = 1_000
MAX_INTERVAL_MS = 60_000
DEFAULT_INTERVAL_MS = 2_000
HEARTBEAT_S = 15.0
MAX_QUERIES = 1_000
"""Distinct ones that are polled at once, of all organisations together."""
MAX_QUERIES_OF_ONE = 20
"""The same, of one organisation."""

_MOMENT = timedelta(microseconds=1)
_AT_MOST = {  # how long a bucket can be; no change of a clock has ever added a day
    Bucket.MINUTE: timedelta(minutes=1),
    Bucket.HOUR: timedelta(hours=1),
    Bucket.DAY: timedelta(days=2),
    Bucket.WEEK: timedelta(days=8),
    Bucket.MONTH: timedelta(days=32),
}

_Key = tuple[str, Hashable]  # an organisation, and a query of it

log = structlog.get_logger("live usage")


@dataclass(frozen=True, slots=True)
class LiveQuery:
    """The latest `last` buckets, the present one among them. `interval_ms`: from the end of one look to the next."""

    last: int
    bucket: Bucket
    time_zone: str = "UTC"
    group_by: tuple[Dimension, ...] = ()
    where: UsageFilter = field(default_factory=UsageFilter)
    interval_ms: int = DEFAULT_INTERVAL_MS


@dataclass(frozen=True, eq=False, slots=True)
class Tick:
    """The one object for all who get this report, equal to no other: what is made of it can be shared too."""

    report: UsageReport


class LiveUsage:
    """Reports to whoever listens. Opened by `open_live_usage`. `now` is aware.

    A query's poller begins with its first listener and ends with its last. Those of one organisation take turns at the
    ledger, so that its dashboards don't keep others from their reports.
    """

    def __init__(self, ledger: Ledger, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._now = now
        self._pollers: dict[_Key, _Poller] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ticks(self, principal: Principal, query: LiveQuery) -> AsyncGenerator[Tick, None]:
        """What is known now, at once where others listen already; then a report whenever one differs from the last, and
        after HEARTBEAT_S without one. A slow listener misses reports, never the newest. While the ledger can't be read
        there are none.

        Raises BadUserInputError, its path from ("input", …), which may come later too, as groups become more;
        RateLimitedError and ServiceUnavailableError for too many distinct queries; ServiceUnavailableError at the
        process's end; UnauthenticatedError in place of the first report after the principal has expired.
        """
        poller = self._poller(principal, query)
        seen = 0
        poller.listeners += 1
        try:
            while True:
                seen, tick = await poller.later_than(seen)
                if principal.expires_at <= self._now().timestamp():
                    raise UnauthenticatedError("the token has expired: subscribe again with a new one")
                yield tick
        finally:
            poller.listeners -= 1
            await self._rest(poller)

    def _poller(self, principal: Principal, query: LiveQuery) -> _Poller:
        _check(query, self._now())
        key = _key(principal.organisation, query)
        poller = self._pollers.get(key)
        if poller is not None and poller.ended is None:
            return poller
        others = [each for each in self._pollers.values() if each.organisation == principal.organisation]
        if poller is None:
            self._check_room(len(others))
        turn = others[0].turn if others else asyncio.Lock()

        async def look() -> UsageReport:
            async with turn:
                return await usage.report(self._ledger, principal, latest(query, self._now()))

        poller = self._pollers[key] = _Poller(key, turn, look, query.interval_ms / 1000)
        self._tasks.add(poller.task)
        poller.task.add_done_callback(self._tasks.discard)
        return poller

    def _check_room(self, taken: int) -> None:
        if taken >= MAX_QUERIES_OF_ONE:
            raise RateLimitedError(
                f"at most {MAX_QUERIES_OF_ONE} distinct live queries of an organisation at once: end one, or ask for"
                " the same query and interval as others do"
            )
        if len(self._pollers) >= MAX_QUERIES:
            raise ServiceUnavailableError("this server can't watch more live queries at the moment")

    async def _rest(self, poller: _Poller) -> None:
        """Ends a poller that nobody listens to any more."""
        if poller.listeners:
            return
        if self._pollers.get(poller.key) is poller:
            del self._pollers[poller.key]
        await end(poller.task)

    async def close(self) -> None:
        """Ends every poller; those who still listen are told to ask again."""
        for poller in self._pollers.values():
            poller.end(ServiceUnavailableError("the server is shutting down: ask again"))
        await end(*self._tasks)


@asynccontextmanager
async def open_live_usage(ledger: Ledger, now: Callable[[], datetime]) -> AsyncIterator[LiveUsage]:
    """Leaving the context ends what still polls."""
    live = LiveUsage(ledger, now)
    try:
        yield live
    finally:
        await live.close()


def latest(query: LiveQuery, now: datetime) -> UsageQuery:
    """The report of the query's buckets at a moment: whole ones, so that the last ends in the future.

    Raises BadUserInputError.
    """
    zone = usage.zone_named(query.time_zone)
    starts = boundaries(
        now - query.last * _AT_MOST[query.bucket], now + _MOMENT, query.bucket, zone, limit=usage.MAX_CELLS
    )
    since, until = starts[-1 - query.last], starts[-1]
    return UsageQuery(since, until, query.bucket, query.time_zone, query.group_by, query.where)


class _Poller:
    """Looks, and keeps what it saw last for everyone who listens: nothing queues. `number` counts the reports that
    differ from the one before, or come after HEARTBEAT_S."""

    def __init__(
        self, key: _Key, turn: asyncio.Lock, look: Callable[[], Awaitable[UsageReport]], interval_s: float
    ) -> None:
        self.key = key
        self.organisation = key[0]
        self.turn = turn
        self.listeners = 0
        self.ended: Exception | None = None
        self._ended_at: TracebackType | None = None
        self._look = look
        self._interval_s = interval_s
        self._newest: Tick | None = None
        self._number = 0
        self._told_at = 0.0
        self._told = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="live-usage")

    async def _run(self) -> None:
        readable = True
        while True:
            try:
                self._saw(await self._look())
                readable = True
            except ServiceUnavailableError as error:
                if readable:
                    log.warning("no live usage meanwhile", organisation=self.organisation, reason=error.message)
                readable = False
            except Exception as error:  # noqa: BLE001  # whatever it is, each listener must hear of it
                self.end(error)
                return
            await asyncio.sleep(self._interval_s)

    async def later_than(self, number: int) -> tuple[int, Tick]:
        """The newest report and its number, which is another than `number`. Raises what ended the poller."""
        while True:
            if self.ended is not None:
                raise self.ended.with_traceback(self._ended_at)  # the same for each listener, and no longer each time
            if self._newest is not None and self._number != number:
                return self._number, self._newest
            await self._told.wait()

    def end(self, why: Exception) -> None:
        self.ended, self._ended_at = why, why.__traceback__
        self._told.set()

    def _saw(self, report: UsageReport) -> None:
        now = asyncio.get_running_loop().time()
        before, self._newest = self._newest, Tick(report)
        same = before is not None and replace(report, as_of=before.report.as_of) == before.report
        if same and now - self._told_at < HEARTBEAT_S:
            return
        self._number += 1
        self._told_at = now
        self._told.set()
        self._told = asyncio.Event()


def _check(query: LiveQuery, now: datetime) -> None:
    if not 1 <= query.last <= MAX_BUCKETS:
        raise BadUserInputError(f"from 1 to {MAX_BUCKETS} buckets", path=("input", "last"))
    if not MIN_INTERVAL_MS <= query.interval_ms <= MAX_INTERVAL_MS:
        raise BadUserInputError(
            f"from {MIN_INTERVAL_MS} to {MAX_INTERVAL_MS} milliseconds", path=("input", "intervalMs")
        )
    usage.check(latest(query, now))


def _key(organisation: str, query: LiveQuery) -> _Key:
    """The same for queries that mean the same, in whatever order their filters stand."""
    fields = frozenset((name, frozenset(values)) for name, values in query.where.fields.items())
    where = (fields, frozenset(query.where.labels))
    return organisation, (query.last, query.bucket, query.time_zone, query.group_by, where, query.interval_ms)
