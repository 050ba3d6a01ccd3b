"""What processes share, where there is one process: the embedded default."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from heapq import heappop, heappush

from .ports import LISTENER_BACKLOG

_Key = tuple[str | None, str]


class MemoryValues:
    """Implements `ports.SharedValues`. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._values: dict[_Key, tuple[str, float]] = {}
        self._ends: list[tuple[float, str, str]] = []  # the soonest first; of a value written anew, its old end too

    async def claim(self, organisation: str | None, key: str, value: str, *, seconds: float) -> str | None:
        if (standing := await self.read(organisation, key)) is not None:
            return None if standing == value else standing
        await self.write(organisation, key, value, seconds=seconds)
        return None

    async def read(self, organisation: str | None, key: str) -> str | None:
        self._forget()
        found = self._values.get((organisation, key))
        return found[0] if found else None

    async def write(self, organisation: str | None, key: str, value: str, *, seconds: float) -> None:
        self._forget()
        end = self._clock() + seconds
        self._values[organisation, key] = (value, end)
        heappush(self._ends, (end, organisation or "", key))

    async def release(self, organisation: str | None, key: str, value: str) -> bool:
        if await self.read(organisation, key) != value:
            return False
        del self._values[organisation, key]
        return True

    def _forget(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, organisation, key = heappop(self._ends)
            found = self._values.get((organisation or None, key))
            if found is not None and found[1] <= now:
                del self._values[organisation or None, key]


class MemoryEvents:
    """Implements `ports.Events`."""

    def __init__(self) -> None:
        self._listeners: defaultdict[str, set[Backlog]] = defaultdict(set)

    async def publish(self, channel: str, message: str) -> None:
        for backlog in self._listeners.get(channel, ()):
            backlog.put(message)

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncGenerator[str, None]]:
        backlog = Backlog()
        self._listeners[channel].add(backlog)
        try:
            async with aclosing(backlog.messages()) as messages:
                yield messages
        finally:
            self._listeners[channel].discard(backlog)
            if not self._listeners[channel]:
                del self._listeners[channel]


class Backlog:
    """What one listener has not read yet: the newest LISTENER_BACKLOG."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] = asyncio.Queue(LISTENER_BACKLOG)

    def put(self, message: str) -> None:
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(message)

    async def messages(self) -> AsyncGenerator[str, None]:
        while True:
            yield await self._queue.get()
