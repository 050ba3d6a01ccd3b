"""Requests as no library sends them, to the real server: of shapes by which a proxy and a server may be set at odds
(RFC 9112, 11.2), and of kinds that few servers are asked."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator

import pytest

from .documents import Told
from .processes import Server

BODY = b'{"query": "{ __typename }"}'
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
LENGTH = b"content-length: %d\r\n" % len(BODY)
ANSWER = Told(data={"__typename": "Query"})


@pytest.fixture(autouse=True)
def no_traceback(server: Server) -> Iterator[None]:
    before = server.log().count("Traceback")
    yield
    assert server.log().count("Traceback") == before


def post(token: str, headers: bytes, body: bytes, *, version: bytes = b"1.1") -> bytes:
    return (
        b"POST /graphql HTTP/" + version + b"\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"authorization: Bearer " + token.encode() + b"\r\n" + headers + b"\r\n" + body
    )


async def exchanged(server: Server, data: bytes) -> list[tuple[int, bytes]]:
    """The status and the body of every answer to these bytes, until the server closes or has nothing more to say."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    answers = []
    try:
        async with asyncio.timeout(60):
            writer.write(data)
            writer.write_eof()
            while head := await reader.readuntil(b"\r\n\r\n"):
                status = int(head.split()[1])
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                answers.append((status, await reader.readexactly(int(length[1]) if length else 0)))
    except (asyncio.IncompleteReadError, ConnectionResetError):
        pass
    finally:
        writer.close()
    return answers


async def asked_first(server: Server, data: bytes) -> tuple[int, bytes]:
    """The first answer, and nothing is assumed of what follows; the connection stays open meanwhile."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(60):
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            return int(head.split()[1]), head
    finally:
        writer.close()


@pytest.mark.parametrize(
    "headers",
    [
        LENGTH + b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\n" + LENGTH,
        b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: chunked, gzip\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding\x00: chunked\r\n",
        b"content-length: 5\r\ncontent-length: 27\r\n",
        b"content-length: +27\r\n",
        b"content-length: -1\r\n",
        b"content-length: 0x1b\r\n",
        b"content-length: 27, 27\r\n",
        b"content-length: 99999999999999999999999\r\n",
        b"x: a\r\n folded: transfer-encoding: chunked\r\ncontent-length : 27\r\n",
        b"no colon\r\n" + LENGTH,
        b": no name\r\n" + LENGTH,
        b"a name: x\r\n" + LENGTH,
        b"x: \x00\r\n" + LENGTH,
    ],
)
@pytest.mark.parametrize("body", [BODY, CHUNKED], ids=["plain", "chunked"])
async def test_a_request_of_two_meanings_is_refused(server: Server, token: str, headers: bytes, body: bytes) -> None:
    """And what stands behind it is not taken for a request."""
    hidden = b"GET /healthcheck HTTP/1.1\r\nhost: x\r\n\r\n"
    answers = await exchanged(server, post(token, headers, body + hidden))
    assert [status for status, _ in answers] == [400]


@pytest.mark.parametrize(
    "body",
    [
        b"1b\n" + BODY + b"\r\n0\r\n\r\n",
        b"0x1b\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"-1\r\n" + BODY,
        b"ffffffffffffffffff\r\n" + BODY,
        b"1b\r\n" + BODY + b"X\r\n0\r\n\r\n",
    ],
)
async def test_a_chunk_of_two_meanings_is_refused(server: Server, token: str, body: bytes) -> None:
    answers = await exchanged(server, post(token, b"transfer-encoding: chunked\r\n", body))
    assert [status for status, _ in answers] in ([400], [])  # none, where the answer had begun to be made


async def test_chunks_with_extensions_and_trailers_are_a_body(server: Server, token: str) -> None:
    body = b"5;name=value\r\n" + BODY[:5] + b"\r\n16\r\n" + BODY[5:] + b"\r\n0\r\nx-checksum: 7\r\n\r\n"
    status, head = await asked_first(server, post(token, b"transfer-encoding: chunked\r\n", body))
    assert status == 200, head


async def test_a_trailer_is_no_header(server: Server) -> None:
    """A token behind the body opens nothing."""
    body = CHUNKED.removesuffix(b"\r\n") + b"authorization: Bearer x\r\n\r\n"
    request = (
        b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    status, _ = await asked_first(server, request + body)
    assert status == 401


@pytest.mark.parametrize("name", [b"authorization", b"content-type", b"host", b"origin"])
async def test_a_header_that_contradicts_itself_is_refused(server: Server, token: str, name: bytes) -> None:
    twice = name + b": a\r\n" + name + b": b\r\n"
    ((status, body),) = await exchanged(server, post(token, twice + b"connection: close\r\n" + LENGTH, BODY))
    assert status == 400
    assert name.decode() in json.loads(body)["errors"][0]["message"]


async def test_others_may_come_in_parts(server: Server, token: str) -> None:
    parts = b"accept: text/html;q=0.1\r\naccept: application/graphql-response+json\r\n"
    status, head = await asked_first(server, post(token, parts + LENGTH, BODY))
    assert (status, b"application/graphql-response+json" in head) == (200, True)


async def test_who_asks_before_it_sends_the_body_is_told_to_go_on(server: Server, token: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(60):
        writer.write(post(token, b"expect: 100-continue\r\n" + LENGTH, b""))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(BODY)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


@pytest.mark.parametrize(("header", "status"), [(b"x: y\r\n", 401), (b"content-encoding: gzip\r\n", 401)])
async def test_or_not_to(server: Server, header: bytes, status: int) -> None:
    request = post("x.y.z", b"expect: 100-continue\r\n" + header + LENGTH, b"")
    assert (await asked_first(server, request))[0] == status


async def test_http_1_0_is_answered_and_closed(server: Server, token: str) -> None:
    ((status, body),) = await exchanged(server, post(token, LENGTH, BODY, version=b"1.0"))
    assert (status, json.loads(body)) == (200, ANSWER)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS, to a port without it
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /graphql\r\n\r\n",
        b"GET /graphql HTTP/9.9\r\n\r\n",
        b"G\xc3\x89T /graphql HTTP/1.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\x00" * 1000,
    ],
)
async def test_what_is_hardly_a_request_is_refused_or_closed(server: Server, data: bytes) -> None:
    answers = await exchanged(server, data)
    assert all(400 <= status < 500 for status, _ in answers), answers
    assert (await asked_first(server, b"GET /healthcheck HTTP/1.1\r\nhost: x\r\n\r\n"))[0] == 200
