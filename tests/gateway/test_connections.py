"""What a client may send before its token is looked at is bounded, and how slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from gateway import connections
from gateway.connections import MAX_HEAD_BYTES, MAX_LATE_PIECES

from .wire import CHUNKED, GET, POST, UPGRADE, Connection, Slow, answer, connected


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    async with connected() as pair:
        yield pair


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


async def test_a_body_that_goes_on_coming_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a large file over a slow line does; one that stops on its way is not."""
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.5)
    monkeypatch.setattr(connections, "MIN_BODY_BYTES", 10)
    loop = asyncio.get_running_loop()
    async with connected() as (reader, writer):
        writer.write(POST + b"content-length: 10000\r\n\r\n")
        begun, sent = loop.time(), 0
        while loop.time() - begun < 1.3:
            writer.write(b"y" * 10)
            sent += 10
            await asyncio.sleep(0.02)
        writer.write(b"y" * (10_000 - sent))
        assert await answer(reader) == (b"200", b"10000 bytes")
        writer.write(POST + b"content-length: 10000\r\n\r\n" + b"y" * 9_000)
        assert (await answer(reader))[0] == b"408"


async def test_nor_is_a_body_that_comes_in_drops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connections, "MIN_BODY_BYTES", 1_000)
    async with connected() as (reader, writer):
        writer.write(POST + b"content-length: 10000\r\n\r\n")
        answered = asyncio.create_task(answer(reader))
        while not answered.done():
            writer.write(b"y")
            await asyncio.sleep(0.02)
        assert (await answered)[0] == b"408"


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


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answers without a look at the body, as a request without a token is answered."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


@pytest.mark.parametrize("late", [b"y", b"1\r\ny\r\n0\r\n\r\n"], ids=["length", "chunked"])
async def test_a_body_that_comes_after_its_answer_leaves_no_connection_without_a_timer(
    late: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.2)
    async with connected(refuse) as (reader, writer):
        writer.write(CHUNKED if late[1:] else POST + b"content-length: 1\r\n\r\n")
        assert await answer(reader) == (b"401", b"no")
        writer.write(late)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_nor_is_one_read_for_ever_that_comes_in_crumbs() -> None:
    crumbs = b"1\r\ny\r\n" * 10_000
    async with connected(refuse) as (reader, writer):
        writer.write(CHUNKED)
        assert await answer(reader) == (b"401", b"no")
        sent = 0
        with suppress(ConnectionError):
            while sent < 100 * MAX_LATE_PIECES:
                writer.write(crumbs)
                await writer.drain()
                sent += 10_000
        assert sent < 100 * MAX_LATE_PIECES, "the server read on"


async def test_a_large_one_is_and_its_connection_serves_on() -> None:
    size = 32 * 1024 * 1024
    async with connected(refuse) as (reader, writer):
        writer.write(POST + b"content-length: %d\r\n\r\n" % size)
        assert await answer(reader) == (b"401", b"no")
        writer.write(b"y" * size)
        await writer.drain()
        writer.write(GET)
        assert await answer(reader) == (b"401", b"no")


async def test_nor_do_line_ends_that_no_request_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.2)
    async with connected() as (reader, writer):
        writer.write(POST + b"content-length: 1\r\n\r\nx")
        assert await answer(reader) == (b"200", b"1 bytes")
        writer.write(b"\r\n")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_after_a_body_that_came_late_the_connection_serves_on() -> None:
    async with connected(refuse) as (reader, writer):
        for _ in range(3):
            writer.write(POST + b"content-length: 2\r\n\r\nx")
            assert await answer(reader) == (b"401", b"no")
            writer.write(b"y\r\n")


async def test_each_body_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.3)
    loop = asyncio.get_running_loop()
    async with connected(refuse) as (reader, writer):
        writer.write(POST + b"content-length: 1\r\n\r\n")
        assert await answer(reader) == (b"401", b"no")
        over = asyncio.Event()
        loop.call_later(0.2, over.set)
        await over.wait()
        begun = loop.time()
        writer.write(b"x" + CHUNKED)
        assert await answer(reader) == (b"401", b"no")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        assert loop.time() - begun > 0.25


@pytest.mark.parametrize("body", [b"content-length: 5\r\n\r\nx", b"transfer-encoding: chunked\r\n\r\n"])
async def test_an_upgrade_with_a_body_is_refused(body: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(UPGRADE + body)
        status, _ = await answer(reader)
        assert status == b"400"
        assert await reader.read() == b""


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
