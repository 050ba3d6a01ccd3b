"""A connection to the server's protocol, seen from both ends, and applications behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from gateway.connections import BoundedConnection
from gateway.frames import BoundedSocket

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET /graphql HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST /graphql HTTP/1.1\r\nhost: x\r\n"
UPGRADE = (
    b"GET /graphql HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


async def count_body(scope: Any, receive: Any, send: Any) -> None:
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = b"%d bytes" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Slow:
    """An application that answers in its own time, `answer`, and tells when the client has left."""

    def __init__(self, answer: bytes = b"the answer", *, close: bool = False) -> None:
        self.begun = asyncio.Event()
        self.free = asyncio.Event()
        self.answered = asyncio.Event()
        self.left = asyncio.Event()
        self.calls = 0
        self._answer = answer
        self._headers = [(b"content-length", b"%d" % len(answer))] + [(b"connection", b"close")] * close

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        while (await receive()).get("more_body", False):
            pass
        watcher = asyncio.create_task(self._watch(receive))
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        self.begun.set()
        await self.free.wait()
        await send({"type": "http.response.body", "body": self._answer})
        self.answered.set()
        await watcher

    async def _watch(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


class ServerSide:
    """The server's end of a connection, whose kernel buffer is small; `lost` is set when the server has given it up."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.transport: Any = None

    def made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


@asynccontextmanager
async def connected(app: Any = count_body, side: ServerSide | None = None) -> AsyncIterator[Connection]:
    """A connection to a server of `app`, seen from the client, and from `side`."""

    class Http(BoundedConnection):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if side is not None:
                side.made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if side is not None:
                side.lost.set()

    class Socket(BoundedSocket):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if side is not None:
                side.lost.set()

    config = uvicorn.Config(app, http=Http, ws=Socket, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Http(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()
        server.close()
        for task in list(state.tasks):
            await task


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return head.split()[1], await reader.readexactly(int(length))
