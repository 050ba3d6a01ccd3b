"""Alerts as they happen, to whoever listens, in whatever process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal

import orjson
import structlog

from persistence.ports import Events, StoreUnavailableError

from .budget_alerts import BudgetAlert
from .errors import ServiceUnavailableError, UnauthenticatedError
from .heeding import heeding
from .principal import Principal

BACKLOG = 100
_CHANNEL = "budget-alerts"

log = structlog.get_logger("limits")


class AlertFeed:
    """Opened by `open_alert_feed`. `now` is aware."""

    def __init__(self, now: Callable[[], datetime], events: Events | None) -> None:
        self._now = now
        self._events = events
        self._listeners: defaultdict[str, set[asyncio.Queue[BudgetAlert | None]]] = defaultdict(set)
        self._closed = False

    async def publish(self, alert: BudgetAlert) -> None:
        """To those who listen now. Where other processes can't be told, this one's listeners are."""
        if self._events is not None:
            try:
                await self._events.publish(_CHANNEL, orjson.dumps(asdict(alert), default=str).decode())
            except StoreUnavailableError as error:
                log.warning("other processes are not told of an alert", reason=str(error))
            else:
                return  # this one hears it too
        self._hand_out(alert)

    async def alerts(self, principal: Principal) -> AsyncGenerator[BudgetAlert, None]:
        """The organisation's, from now on. A listener that lags BACKLOG behind loses the oldest.

        Raises ServiceUnavailableError at the process's end; UnauthenticatedError in place of the first alert after the
        principal has expired.
        """
        mine: asyncio.Queue[BudgetAlert | None] = asyncio.Queue(BACKLOG)
        self._listeners[principal.organisation].add(mine)
        try:
            while not self._closed and (alert := await mine.get()) is not None:
                if principal.expires_at <= self._now().timestamp():
                    raise UnauthenticatedError("the token has expired: subscribe again with a new one")
                yield alert
            raise ServiceUnavailableError("the server is shutting down: ask again")
        finally:
            self._listeners[principal.organisation].discard(mine)
            if not self._listeners[principal.organisation]:
                del self._listeners[principal.organisation]

    async def hear(self, message: str) -> None:
        told = orjson.loads(message)
        told |= {name: Decimal(told[name]) for name in ("limit", "spent")}
        told |= {name: datetime.fromisoformat(told[name]) for name in ("begun_at", "ends_at")}
        self._hand_out(BudgetAlert(**told))

    def close(self) -> None:
        self._closed = True
        for queues in self._listeners.values():
            for queue in queues:
                _put(queue, None)

    def _hand_out(self, alert: BudgetAlert) -> None:
        for queue in self._listeners.get(alert.organisation, ()):
            _put(queue, alert)


@asynccontextmanager
async def open_alert_feed(now: Callable[[], datetime], events: Events | None) -> AsyncIterator[AlertFeed]:
    """Leaving the context ends what still listens."""
    feed = AlertFeed(now, events)
    try:
        if events is None:
            yield feed
        else:
            async with heeding(events, _CHANNEL, feed.hear):
                yield feed
    finally:
        feed.close()


def _put(queue: asyncio.Queue[BudgetAlert | None], alert: BudgetAlert | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(alert)
