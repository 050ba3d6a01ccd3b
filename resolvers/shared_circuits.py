"""Circuits that open in one process of a deployment open in all, and close likewise."""

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
from .routing import CIRCUIT_OPEN_S, CircuitKey, Circuits

BACKLOG = 1_000
_CHANNEL = "circuits"

log = structlog.get_logger("circuits")


class _Shared:
    def __init__(self, events: Events, circuits: Circuits) -> None:
        self._me = uuid7().hex
        self._events = events
        self._circuits = circuits
        self._news: asyncio.Queue[bytes] = asyncio.Queue(BACKLOG)

    def tell(self, key: CircuitKey, open_s: float) -> None:
        """What happened here; 0 seconds: it is closed. Past the bound, others find out for themselves."""
        if not self._news.full():
            self._news.put_nowait(orjson.dumps({"from": self._me, "circuit": key, "open_s": open_s}))

    def ask(self) -> None:
        self._news.put_nowait(orjson.dumps({"from": self._me}))

    async def send(self) -> None:
        while True:
            news = await self._news.get()
            try:
                await self._events.publish(_CHANNEL, news.decode())
            except StoreUnavailableError as error:
                log.warning("other processes are not told of a circuit", reason=str(error))

    async def hear(self, message: str) -> None:
        news = orjson.loads(message)
        if news["from"] == self._me:
            return
        if "circuit" not in news:  # one that has just begun
            for key, open_s in self._circuits.open():
                self.tell(key, open_s)
            return
        provider, model, key_id = news["circuit"]
        self._circuits.heard((provider, model, key_id), min(float(news["open_s"]), CIRCUIT_OPEN_S))


@asynccontextmanager
async def sharing_circuits(events: Events, circuits: Circuits) -> AsyncIterator[None]:
    """While the server of the events is away, each process knows of its own alone."""
    shared = _Shared(events, circuits)
    async with beside("circuits", shared.send), heeding(events, _CHANNEL, shared.hear):
        circuits.tell = shared.tell
        shared.ask()
        try:
            yield
        finally:
            circuits.tell = None
