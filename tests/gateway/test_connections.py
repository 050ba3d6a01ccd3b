"""What a client may send before its token is looked at is bounded, and how long it may leave an answer unread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway import connections
from gateway.connections import MAX_HEAD_BYTES, BoundedConnection

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
POST = b"POST /graphql HTTP/1.1\r\nhost: x\r\n"
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
        await watcher

    async def _watch(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


@asynccontextmanager
async def connected(app: Any = count_body, lost: asyncio.Event | None = None) -> AsyncIterator[Connection]:
    """A connection to a server of `app`, which sets `lost` when the server has given it up."""

    class Told(BoundedConnection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if lost is not None:
                lost.set()

    config = uvicorn.Config(app, http=BoundedConnection, ws="none", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Told(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(20):
            yield reader, writer
    finally:
        writer.close()
        server.close()
        for task in list(state.tasks):
            await task


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    async with connected() as pair:
        yield pair


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return head.split()[1], await reader.readexactly(int(length))


FLOODS = {
    "many headers": (POST, b"x-padding: " + b"y" * 1000 + b"\r\n"),
    "one long header": (POST + b"x-padding: ", b"y" * 1000),
    "a long address": (b"GET /graphql?query=", b"y" * 1000),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"x-padding: " + b"y" * 1000 + b"\r\n"),
}


@pytest.mark.parametrize("flood", FLOODS)
async def test_an_endless_head_is_cut_short(connection: Connection, flood: str) -> None:
    reader, writer = connection
    start, padding = FLOODS[flood]
    writer.write(start)
    sent = 0
    while not reader.at_eof() and sent < 100 * MAX_HEAD_BYTES:
        try:
            writer.write(padding)
            await writer.drain()
        except ConnectionError:
            break
        sent += len(padding)
    assert sent < 100 * MAX_HEAD_BYTES, "the server stopped reading"


async def test_the_refusal_says_why(connection: Connection) -> None:
    reader, writer = connection
    head = POST + b"x-padding: "
    writer.write(head.ljust(MAX_HEAD_BYTES + 1, b"y"))
    status, body = await answer(reader)
    assert (status, body) == (b"400", b"The head is larger than 65536 bytes.")
    assert await reader.read() == b""


async def test_a_head_of_the_usual_kind_is_taken(connection: Connection) -> None:
    reader, writer = connection
    writer.write(POST + b"authorization: Bearer " + b"t" * 8192 + b"\r\ncookie: " + b"c" * 40_000 + b"\r\n\r\n")
    assert await answer(reader) == (b"200", b"0 bytes")


@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_are_not_counted(connection: Connection, chunked: bool) -> None:
    reader, writer = connection
    size = 20 * MAX_HEAD_BYTES
    if chunked:
        piece = b"%x\r\n" % 1000 + b"y" * 1000 + b"\r\n"
        writer.write(CHUNKED + piece * (size // 1000) + b"0\r\n\r\n")
        size -= size % 1000
    else:
        writer.write(POST + b"content-length: %d\r\n\r\n" % size + b"y" * size)
    await writer.drain()
    assert await answer(reader) == (b"200", b"%d bytes" % size)


async def test_a_connection_that_is_kept_starts_anew(connection: Connection) -> None:
    reader, writer = connection
    for _ in range(5):
        writer.write(POST + b"x-padding: " + b"y" * (MAX_HEAD_BYTES // 2) + b"\r\ncontent-length: 1\r\n\r\nx")
        assert await answer(reader) == (b"200", b"1 bytes")


@pytest.mark.parametrize("sent", [b"", b"POST /graphql HT", POST], ids=["nothing", "half a line", "half a head"])
async def test_a_head_that_never_comes_is_not_waited_for(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.05)
    async with connected() as (reader, writer):
        writer.write(sent)
        with suppress(ConnectionResetError):  # how an abort is told depends on what was still unread
            assert await reader.read() == b"", "an answer to half a request"


async def test_once_the_head_is_here_the_body_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.05)
    async with connected() as (reader, writer):
        for _ in range(2):  # the second on the same connection
            writer.write(POST + b"content-length: 1\r\n\r\n")
            over = asyncio.Event()
            asyncio.get_running_loop().call_later(0.1, over.set)
            await over.wait()
            writer.write(b"x")
            assert await answer(reader) == (b"200", b"1 bytes")


@pytest.mark.parametrize("request_head", [POST + b"content-length: 2\r\n\r\nx", CHUNKED], ids=["length", "chunked"])
async def test_a_body_that_never_comes_is_not_waited_for(request_head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.05)
    async with connected() as (reader, writer):
        writer.write(POST + b"content-length: 1\r\n\r\nx")
        assert await answer(reader) == (b"200", b"1 bytes")
        writer.write(request_head)
        status, body = await answer(reader)
        assert (status, body) == (b"408", b"The body took much too long.")
        assert await reader.read() == b""


async def test_a_body_that_never_comes_to_an_answer_that_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.05)

    async def eager(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        while (await receive())["type"] != "http.disconnect":
            pass

    async with connected(eager) as (reader, writer):
        writer.write(CHUNKED)
        with suppress(ConnectionResetError):
            assert (await reader.read()).count(b"HTTP/1.1") == 1


GET = b"GET /graphql HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("behind", [GET, b"no request at all\r\n\r\n", b"POST /graphql HTTP/1.1\r\nupgrade: websocket"])
async def test_what_comes_before_the_answer_is_not_taken(behind: bytes) -> None:
    app = Slow()
    async with connected(app) as (reader, writer):
        writer.write(GET)
        await app.begun.wait()
        writer.write(behind)
        await writer.drain()
        await asyncio.sleep(0)
        app.free.set()
        assert await answer(reader) == (b"200", b"the answer")
        assert await reader.read() == b""
    assert app.calls == 1


@pytest.mark.parametrize("body", [b"", b"x"])
async def test_nor_is_what_came_with_the_request(body: bytes) -> None:
    app = Slow()
    app.free.set()
    request = POST + b"content-length: %d\r\n\r\n" % len(body) + body
    async with connected(app) as (reader, writer):
        writer.write(request * 3)
        assert await answer(reader) == (b"200", b"the answer")
        assert await reader.read() == b""
    assert app.calls == 1


async def test_a_client_that_leaves_behind_another_request_is_noticed() -> None:
    app = Slow()
    async with connected(app) as (_, writer):
        writer.write(GET)
        await app.begun.wait()
        writer.write(GET)
        await writer.drain()
        writer.close()
        await app.left.wait()
        app.free.set()


async def test_garbage_within_a_request_that_is_being_answered_ends_it() -> None:
    """It can't be told: the text of a refusal would read as part of the answer."""
    begun = asyncio.Event()

    async def eager(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with connected(eager) as (reader, writer):
        writer.write(CHUNKED)
        await begun.wait()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        writer.write(b"not a size\r\n")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


MORE_THAN_KERNELS_HOLD = b"x" * (32 * 1024 * 1024)


@pytest.mark.parametrize("close", [False, True])
async def test_an_answer_that_nobody_reads_is_given_up(close: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 0.05)
    app = Slow(MORE_THAN_KERNELS_HOLD, close=close)
    app.free.set()
    lost = asyncio.Event()
    async with connected(app, lost) as (_, writer):
        writer.transport.pause_reading()
        writer.write(GET)
        await lost.wait()


async def test_one_that_is_read_slowly_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 0.02)
    app = Slow(MORE_THAN_KERNELS_HOLD)
    app.free.set()
    async with connected(app) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert len(await reader.readexactly(len(MORE_THAN_KERNELS_HOLD))) == len(MORE_THAN_KERNELS_HOLD)
