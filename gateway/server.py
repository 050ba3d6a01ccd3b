"""The server process: uvicorn with every timeout stated, and an end that breaks off nothing that can still be answered.

Its parts are the same for one process and for those that `gateway.processes` starts.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import structlog
import uvicorn

from .announcement import announcement
from .app import Gateway
from .connections import BoundedConnection
from .frames import BoundedSocket
from .settings import Settings

LAST_WORDS_S = 5.0
"""From the limit, or a second signal, to the end of what was broken off: it is booked, and its caller told."""
UNWINDING_S = 5.0
POLL_S = 0.05
WEBSOCKET_PING_S = 20.0
_EPITAPH = "Application startup failed. Exiting."  # uvicorn's, beside the one line that says why

log = structlog.get_logger("server")


def server_config(settings: Settings, gateway: Gateway, **more: Any) -> uvicorn.Config:
    """uvicorn's. `more` is what a process that has others beside it needs."""
    logging.getLogger("uvicorn.error").addFilter(_is_no_epitaph)
    return uvicorn.Config(
        gateway,
        loop="uvloop",
        http=BoundedConnection,
        ws=BoundedSocket,
        ws_max_size=settings.MAX_BODY_BYTES,
        ws_ping_interval=WEBSOCKET_PING_S,
        ws_ping_timeout=WEBSOCKET_PING_S,
        ws_per_message_deflate=False,  # tokens are too short to be worth the CPU
        timeout_keep_alive=settings.KEEP_ALIVE_S,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        **more,
    )


class Server(uvicorn.Server):
    """The first SIGTERM or SIGINT ends it: it accepts nothing more, and what runs may go on for SHUTDOWN_TIMEOUT_S. At
    that limit, at SIGQUIT or at a second signal, the rest is broken off, booked, and told to its callers. A
    process that has a master may get each signal from others too: that one says by SIGQUIT that it hurries."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, settings: Settings, *, has_master: bool = False
    ) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._limit_s = settings.shutdown_timeout_s
        self._has_master = has_master
        self._hurried = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Raises SettingsError where the operator can mend it."""
        try:
            await super().startup(sockets)
        except SystemExit:
            raise self._gateway.refusal or SystemExit(1) from None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        await self._gateway.drain()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._gateway.end_batch_work()
        if not await self._gone(self._limit_s):
            log.warning("what still runs is broken off", tasks=len(self.server_state.tasks), hurried=self._hurried)
            self._gateway.cut_short()
            await self._gone(LAST_WORDS_S, even_hurried=True)
        await self._gateway.end_sockets()
        await self._unwind()
        await self.lifespan.shutdown()

    async def _gone(self, seconds: float, *, even_hurried: bool = False) -> bool:
        """Whether all connections ended, what was asked over them, and what goes on without one."""
        until = time.monotonic() + seconds
        while self.server_state.connections or self.server_state.tasks or self._gateway.completing():
            if time.monotonic() > until or (self._hurried and not even_hurried):
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _unwind(self) -> None:
        tasks = set(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=UNWINDING_S)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Without uvicorn's way to raise them once more at the end: who was told to end, and did, exits with 0."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._has_master and sig == signal.SIGINT:
            return  # a terminal sends it to all; the master passes on what is meant
        again = self.should_exit and not self._has_master
        self._hurried = self._hurried or again or sig == signal.SIGQUIT
        self.should_exit = True


class _Announcing(Server):
    """Says where it listens once it does (with PORT=0 nobody knows before)."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, settings: Settings) -> None:
        super().__init__(config, gateway, settings)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(announcement(self._settings, port))
        sys.stdout.flush()


def run_alone(settings: Settings, gateway: Gateway, listener: socket.socket) -> int:
    """One process. The exit code; raises SettingsError where it can't start."""
    server = _Announcing(server_config(settings, gateway), gateway, settings)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _is_no_epitaph(record: logging.LogRecord) -> bool:
    return record.msg != _EPITAPH
