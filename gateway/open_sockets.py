"""The WebSockets that are open, and how they end with their process: each when nothing runs on it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

SERVICE_RESTART = 1012
"""The close code that tells a client to connect anew (https://www.iana.org/assignments/websocket/websocket.xhtml)."""
PATIENCE_S = 2.0
"""For all of those that are closed at once; one whose client reads nothing is left as it is."""


class Endable(Protocol):
    async def close_if_idle(self) -> None: ...
    async def end(self) -> None: ...


class OpenSockets:
    """From `drain` on, no socket begins anything new."""

    def __init__(self) -> None:
        self.ending = False
        self._open: set[Endable] = set()

    @contextmanager
    def open(self, socket: Endable) -> Iterator[None]:
        self._open.add(socket)
        try:
            yield
        finally:
            self._open.discard(socket)

    async def drain(self) -> None:
        """Those on which nothing runs are closed; the others close themselves when that has ended."""
        self.ending = True
        await _all(socket.close_if_idle for socket in self._open)

    async def end(self) -> None:
        """What still runs is told that it can't go on, and all are closed."""
        await _all(socket.end for socket in self._open)


async def _all(ends: Iterator[Callable[[], Awaitable[None]]]) -> None:
    async def within_patience(end: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await end()

    await asyncio.gather(*map(within_patience, list(ends)), return_exceptions=True)
