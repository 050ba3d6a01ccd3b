"""WebSocket peers that do not read: they are cut off, and the application is told."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from gateway import frames
from gateway.capacity import BYTES_A_PLACE, Capacity
from gateway.frames import BoundedSocket

from .test_capacity import ANN

PING = b"\x89\xfd" + b"\0\0\0\0" + b"p" * 125  # masked with zeros: RFC 6455, 5.5.2
SAFETY_S = 20


class Application:
    """Accepts, greets, and listens; `left` is set by the disconnect."""

    def __init__(self, greeting: str = "", places: int = 1000) -> None:
        self.greeting = greeting
        self.capacity = Capacity(places)
        self.left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["extensions"][BoundedSocket.WELCOME](self.capacity.place(ANN))
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


def message(size: int, sent: int) -> bytes:
    """A text of which only so much comes."""
    return b"\x81\xff" + size.to_bytes(8, "big") + b"\0\0\0\0" + b"x" * sent


async def closed_with(client: socket.socket) -> tuple[int, str]:
    loop, told = asyncio.get_running_loop(), b""
    while data := await loop.sock_recv(client, 4096):
        told += data
    close = told[told.index(b"\x88") :]
    return int.from_bytes(close[2:4], "big"), close[4:].decode()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # nobody tells
        await asyncio.sleep(0.01)


async def test_a_large_message_on_its_way_takes_places_and_then_gives_them_back() -> None:
    application, loop = Application(places=20), asyncio.get_running_loop()
    async with asyncio.timeout(SAFETY_S), served(application) as client:
        await loop.sock_sendall(client, message(5 * BYTES_A_PLACE, 4 * BYTES_A_PLACE))
        await until(lambda: application.capacity._taken == 5)
        await loop.sock_sendall(client, b"x" * BYTES_A_PLACE)
        await until(lambda: application.capacity._taken == 0)
        await loop.sock_sendall(client, message(5 * BYTES_A_PLACE, 4 * BYTES_A_PLACE))
        await until(lambda: application.capacity._taken == 5)
        client.close()
        await application.left.wait()
        assert application.capacity._held == {}


async def test_where_there_is_no_room_for_it_the_socket_is_closed_for_now() -> None:
    application = Application(places=2)
    async with asyncio.timeout(SAFETY_S), served(application) as client:
        with application.capacity.operation(ANN):
            await asyncio.get_running_loop().sock_sendall(client, message(2 * BYTES_A_PLACE, BYTES_A_PLACE))
            code, reason = await closed_with(client)
    assert (code, "ask again" in reason) == (1013, True)
    assert application.capacity._held == {}


async def test_a_large_message_that_stops_on_its_way_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its peer answers every ping, between the fragments."""
    monkeypatch.setattr(frames, "BODY_TIMEOUT_S", 0.1)
    application = Application()
    async with asyncio.timeout(SAFETY_S), served(application) as client:
        first = b"\x01\xff" + (2 * BYTES_A_PLACE).to_bytes(8, "big") + b"\0\0\0\0" + b"x" * 2 * BYTES_A_PLACE
        await asyncio.get_running_loop().sock_sendall(client, first)
        assert await closed_with(client) == (1008, "the message took much too long")
    assert application.capacity._held == {}


async def test_one_that_goes_on_coming_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "BODY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(frames, "MIN_BODY_BYTES", 10)
    application, loop = Application(), asyncio.get_running_loop()
    async with asyncio.timeout(SAFETY_S), served(application) as client:
        await loop.sock_sendall(client, message(2 * BYTES_A_PLACE, BYTES_A_PLACE))
        begun, sent = loop.time(), BYTES_A_PLACE
        while loop.time() - begun < 1.3:
            await loop.sock_sendall(client, b"x" * 10)
            sent += 10
            await asyncio.sleep(0.02)
        await loop.sock_sendall(client, b"x" * (2 * BYTES_A_PLACE - sent) + b"\x88\x80\0\0\0\0")
        assert await closed_with(client) == (0, ""), "as the client has asked for"
    assert application.capacity._held == {}
