"""A WebSocket whose frames are the test's own, byte by byte (RFC 6455, 5.2), mistakes included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .processes import Server

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
HANDSHAKE = (
    "GET /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
PROTOCOL = "sec-websocket-protocol: graphql-transport-ws\r\n"


def frame(opcode: int, data: bytes, *, final: bool = True, masked: bool = True) -> bytes:
    """One frame, whose mask is zero."""
    mask = 0x80 if masked else 0
    if len(data) < 126:
        head = bytes([opcode | 0x80 * final, mask | len(data)])
    elif len(data) < 1 << 16:
        head = bytes([opcode | 0x80 * final, mask | 126]) + len(data).to_bytes(2, "big")
    else:
        head = bytes([opcode | 0x80 * final, mask | 127]) + len(data).to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + data


class RawSocket:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def say(self, message: object) -> None:
        await self.send(frame(TEXT, json.dumps(message).encode()))

    async def init(self, token: str) -> None:
        await self.say({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert await self.hear() == {"type": "connection_ack"}

    async def receive(self) -> tuple[int, bytes]:
        """The next frame's opcode and data."""
        first, length = await self._reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self._reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self._reader.readexactly(8), "big")
        return first & 0x0F, await self._reader.readexactly(length)

    async def hear(self) -> Any:
        """The next message; a ping in between is answered."""
        while True:
            opcode, data = await self.receive()
            if opcode == PING:
                await self.send(frame(PONG, data))
            elif opcode == TEXT:
                return json.loads(data)
            else:
                raise AssertionError(f"frame {opcode} instead of a message: {data!r}")

    async def closed(self) -> tuple[int, str]:
        """The code and the reason of the close frame, whatever comes before it."""
        while True:
            opcode, data = await self.receive()
            if opcode == CLOSE:
                return int.from_bytes(data[:2], "big"), data[2:].decode()


@asynccontextmanager
async def raw_socket(server: Server, token: str | None = None) -> AsyncIterator[RawSocket]:
    """Open, and initialised where there is a token. What takes a minute is a hang."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(60):
            writer.write(f"{HANDSHAKE}{PROTOCOL}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101"), head
            socket = RawSocket(reader, writer)
            if token is not None:
                await socket.init(token)
            yield socket
    finally:
        writer.close()
