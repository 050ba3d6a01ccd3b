"""A fair share of the store's readers: each organisation has one long read at a time, in the order of asking."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from .errors import RateLimitedError, ServiceUnavailableError

MAX_WAITING = 100
"""Reads of one organisation."""

WAIT_S = 30.0


class Turns:
    """Of one process. A read that waits is one of its organisation's own: others' never stand before it."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, organisation: str) -> AsyncIterator[None]:
        """Raises RateLimitedError where so many wait already, ServiceUnavailableError after WAIT_S."""
        lock = self._locks.get(organisation)
        if lock is None:
            lock = self._locks[organisation] = asyncio.Lock()
        await self._wait(organisation, lock)
        try:
            yield
        finally:
            lock.release()

    async def _wait(self, organisation: str, lock: asyncio.Lock) -> None:
        if self._waiting[organisation] >= self._max_waiting:
            raise RateLimitedError(
                f"{self._max_waiting} reads of this organisation wait already: ask for fewer at once"
            )
        self._waiting[organisation] += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await lock.acquire()
        except TimeoutError:
            raise ServiceUnavailableError("other reads of this organisation have not ended: ask again") from None
        finally:
            self._waiting[organisation] -= 1
            if not self._waiting[organisation]:
                del self._waiting[organisation]
