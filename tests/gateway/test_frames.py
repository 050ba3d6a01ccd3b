"""WebSocket peers that do not read: they are cut off, and the application is told."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from gateway import frames
from gateway.frames import BoundedSocket

PING = b"\x89\xfd" + b"\0\0\0\0" + b"p" * 125  # masked with zeros: RFC 6455, 5.5.2
SAFETY_S = 20


class Application:
    """Accepts, greets, and listens; `left` is set by the disconnect."""

    def __init__(self, greeting: str = "") -> None:
        self.greeting = greeting
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][BoundedSocket.WELCOME]()
        await send({"type": "websocket.send", "text": self.greeting})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        self.left.set()


@asynccontextmanager
async def served(application: Application, **config: Any) -> AsyncIterator[socket.socket]:
    """A server of one application, and a client's socket on it with the handshake done."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(
            uvicorn.Config(application, ws=BoundedSocket, lifespan="off", log_config=None, access_log=False, **config)
        )
        serving = asyncio.create_task(server._serve(sockets=[listener]))
        client = socket.socket()
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(client, listener.getsockname())
            await handshake(client)
            yield client
        finally:
            client.close()
            server.should_exit = True
            await serving


async def handshake(client: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    key = base64.b64encode(b"0" * 16)
    await loop.sock_sendall(
        client,
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: " + key + b"\r\n\r\n",
    )
    assert (await loop.sock_recv(client, 1024)).startswith(b"HTTP/1.1 101")


async def flood(client: socket.socket) -> None:
    while True:
        await asyncio.get_running_loop().sock_sendall(client, PING * 1000)


async def test_a_flood_of_pings_whose_pongs_are_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_UNREAD_BYTES", 256 * 1024)
    application = Application()
    async with asyncio.timeout(SAFETY_S), served(application, ws_ping_interval=None) as client:
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            await flood(client)
        await application.left.wait()


async def test_a_peer_that_answers_no_ping_is_cut_off_though_it_reads_nothing() -> None:
    application = Application(greeting="x" * 10_000_000)  # so much that a close would wait for it to be read
    async with asyncio.timeout(SAFETY_S), served(application, ws_ping_interval=0.05, ws_ping_timeout=0.05):
        await application.left.wait()
