"""What a caller spends in one process counts in all: each tells the others, some time later, and waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import structlog
from uuid_utils import uuid7

from persistence.ports import Events, StoreUnavailableError

from .beside import beside
from .heeding import heeding
from .query_costs import MAX_BUCKETS, Caller, CostBuckets

INTERVAL_S = 0.5
CALLERS_A_MESSAGE = 500
_CHANNEL = "query-costs"

log = structlog.get_logger("costs")


class _Shared:
    def __init__(self, events: Events, buckets: CostBuckets) -> None:
        self._me = uuid7().hex
        self._events = events
        self._buckets = buckets
        self._spent: dict[Caller, float] = {}
        self._news = asyncio.Event()

    def tell(self, caller: Caller, points: float) -> None:
        if len(self._spent) < MAX_BUCKETS or caller in self._spent:
            self._spent[caller] = self._spent.get(caller, 0.0) + points
            self._news.set()

    async def send(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(INTERVAL_S)
            self._news.clear()
            spent, self._spent = list(self._spent.items()), {}
            for start in range(0, len(spent), CALLERS_A_MESSAGE):
                await self._publish(spent[start : start + CALLERS_A_MESSAGE])

    async def _publish(self, spent: list[tuple[Caller, float]]) -> None:
        news = {"from": self._me, "spent": [[*caller, round(points, 1)] for caller, points in spent]}
        try:
            await self._events.publish(_CHANNEL, orjson.dumps(news).decode())
        except StoreUnavailableError as error:
            log.warning("other processes are not told what callers spend", reason=str(error))

    async def hear(self, message: str) -> None:
        news = orjson.loads(message)
        if news["from"] != self._me:
            for organisation, name, points in news["spent"]:
                self._buckets.heard((organisation, name), float(points))


@asynccontextmanager
async def sharing_costs(events: Events, buckets: CostBuckets) -> AsyncIterator[None]:
    """While the server of the events is away, each process counts alone."""
    shared = _Shared(events, buckets)
    async with beside("query costs", shared.send), heeding(events, _CHANNEL, shared.hear):
        buckets.tell = shared.tell
        try:
            yield
        finally:
            buckets.tell = None
