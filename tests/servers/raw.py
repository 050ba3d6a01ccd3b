"""A server of bytes, for what no library would send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class RawServer:
    """A server of bytes: the handler gets each request's head and body, and writes what it likes."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.heads: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self.hung_up = asyncio.Event()
        self.left = asyncio.Event()
        """No connection is open."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.left.clear()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                await self.handler(await reader.readexactly(length), reader, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.hung_up.set()
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self.left.set()


@asynccontextmanager
async def serving(handler: Handler | bytes) -> AsyncIterator[RawServer]:
    async def write(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(handler, bytes)
        writer.write(handler)

    raw = RawServer(write if isinstance(handler, bytes) else handler)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(raw.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
