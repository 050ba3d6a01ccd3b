"""What a WebSocket withstands: frames of every wrong shape, in any order, at any time. No close is abnormal, nothing
leaves a traceback, and whoever shares the server goes on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.frames import MAX_FRAGMENTS
from gateway.websocket import MAX_ID_CHARACTERS, MAX_OPERATIONS

from .documents import STREAM, Told
from .processes import Server, Vendor
from .raw_socket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HANDSHAKE,
    PING,
    PONG,
    PROTOCOL,
    TEXT,
    RawSocket,
    frame,
    raw_socket,
)
from .scraping import scrape
from .test_cancellation import closed_in, own_model, until
from .test_providers import asked

TYPENAME = {"query": "{ __typename }"}
DATA = Told(data={"__typename": "Query"})
LONG = "[[tokens=5000]] [[pace=10]]"


@pytest.fixture(autouse=True)
def no_traceback(server: Server) -> Iterator[None]:
    before = server.log().count("Traceback")
    yield
    assert server.log().count("Traceback") == before


def told(server: Server, code: str) -> float:
    """How often callers were told of such an error."""
    return scrape(server.port).value("graphql_errors_total", code=code)


def subscribe(name: object, payload: object) -> dict[str, object]:
    return {"id": name, "type": "subscribe", "payload": payload}


def a_stream(prompt: str, model: str = "openai/gpt-4o-mini") -> dict[str, Any]:
    return {"query": STREAM, "variables": {"input": {**asked("openai", prompt), "model": model}}}


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "a number": b"7",
    "a string": b'"x"',
    "null": b"null",
    "no type": b"{}",
    "a type that is no text": b'{"type": 1}',
    "an unknown type": b'{"type": "start"}',
    "a type that is long": json.dumps({"type": "é" * 5000}).encode(),
    "the server's own type": b'{"type": "connection_ack"}',
    "deep": b"[" * 30_000,
    "deep where values are taken": b'{"type": "ping", "payload": {"a":' + b"[" * 15_000 + b"]" * 15_000 + b"}}",
    "deep within what could be read": b'{"type": "ping", "payload": ' + b'{"a":' * 1000 + b"1" + b"}" * 1001,
    "half a character": b'{"type": "ping", "payload": {"a": "\\ud800"}}',
    "two messages": b'{"type": "ping"}{"type": "ping"}',
    "NaN": b'{"type": "ping", "payload": {"a": NaN}}',
    "init of text": b'{"type": "connection_init", "payload": "x"}',
    "ping of a number": b'{"type": "ping", "payload": 7}',
    "no id": json.dumps({"type": "subscribe", "payload": TYPENAME}).encode(),
    "an id of a number": json.dumps(subscribe(1, TYPENAME)).encode(),
    "an empty id": json.dumps(subscribe("", TYPENAME)).encode(),
    "a long id": json.dumps(subscribe("x" * (MAX_ID_CHARACTERS + 1), TYPENAME)).encode(),
    "no payload": b'{"type": "subscribe", "id": "1"}',
    "payload of text": json.dumps(subscribe("1", "{ __typename }")).encode(),
    "payload null": json.dumps(subscribe("1", None)).encode(),
    "no query": json.dumps(subscribe("1", {})).encode(),
    "a query of a number": json.dumps(subscribe("1", {"query": 1})).encode(),
    "variables of an array": json.dumps(subscribe("1", {**TYPENAME, "variables": []})).encode(),
    "a name of a number": json.dumps(subscribe("1", {**TYPENAME, "operationName": 1})).encode(),
    "extensions of text": json.dumps(subscribe("1", {**TYPENAME, "extensions": "x"})).encode(),
    "complete without an id": b'{"type": "complete"}',
    "complete of a number": b'{"type": "complete", "id": 1}',
}


@pytest.mark.parametrize("initialised", [True, False], ids=["after the ack", "before"])
@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
async def test_a_malformed_message_closes_with_4400(server: Server, token: str, text: bytes, initialised: bool) -> None:
    async with raw_socket(server, token if initialised else None) as socket:
        await socket.send(frame(TEXT, text))
        code, reason = await socket.closed()
    assert code == 4400
    assert reason


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(TEXT, b'{"type": "\xff"}'), 4400),
        (frame(TEXT, b'{"type": "', final=False) + frame(CONTINUATION, b'\xc3("}'), 4400),
        (frame(BINARY, b'{"type": "ping"}'), 4400),
        (frame(TEXT, b" " * (4 * 1024 * 1024 + 1)), 1009),
        (frame(TEXT, b" ", final=False) + frame(CONTINUATION, b"", final=False) * MAX_FRAGMENTS, 1009),
        (frame(TEXT, b'{"type": "ping"}', masked=False), 1002),
        (frame(0x3, b""), 1002),
        (frame(CONTINUATION, b""), 1002),
        (frame(0x9, b"x" * 126), 1002),
    ],
    ids=["not UTF-8", "not UTF-8, in parts", "binary", "large", "fragments", "unmasked", "opcode", "order", "control"],
)
async def test_a_malformed_frame_ends_the_socket_by_its_rule(
    server: Server, token: str, data: bytes, code: int
) -> None:
    """RFC 6455, 7.4.1, and 4400 where the protocol above it has a say."""
    async with raw_socket(server, token) as socket:
        await socket.say(subscribe("running", a_stream(LONG)))
        await socket.hear()
        await socket.send(data)
        assert (await socket.closed())[0] == code


async def test_a_malformed_message_and_a_close_in_one_read(server: Server, token: str) -> None:
    async with raw_socket(server, token) as socket:
        await socket.send(frame(TEXT, b"\xff") + frame(CLOSE, b"\x03\xe8"))
        assert (await socket.closed())[0] == 1000


async def test_a_message_in_parts_with_pings_between_is_one_message(server: Server, token: str) -> None:
    async with raw_socket(server, token) as socket:
        text = json.dumps(subscribe("1", TYPENAME)).encode()
        parts = [frame(TEXT, text[:5], final=False), frame(0x9, b"p"), frame(CONTINUATION, text[5:])]
        for part in parts:
            await socket.send(part)
        assert await socket.receive() == (0xA, b"p")
        assert await socket.hear() == {"id": "1", "type": "next", "payload": DATA}


async def test_a_stranger_may_not_send_much(server: Server) -> None:
    """Neither at once nor in parts, and though no message is whole."""
    pings = frame(0x9, b"") * 20_000
    for data in (frame(TEXT, b" " * 300_000), pings, frame(TEXT, b" ", final=False) + frame(0x9, b"x" * 125) * 3000):
        async with raw_socket(server) as socket:
            await socket.send(data)
            assert (await socket.closed())[0] == 1009


async def test_who_is_known_may_send_a_large_message_at_once(server: Server, token: str) -> None:
    async with raw_socket(server, token) as socket:
        await socket.say(subscribe("1", {**TYPENAME, "variables": {"x": "y" * 3_000_000}}))
        assert (await socket.hear())["payload"] == DATA


async def test_nothing_runs_before_the_ack(server: Server) -> None:
    async with raw_socket(server) as socket:
        await socket.say(subscribe("1", TYPENAME))
        assert (await socket.closed())[0] == 4401


async def test_pings_are_answered_before_the_ack_and_after_with_what_they_bring(server: Server, token: str) -> None:
    async with raw_socket(server) as socket:
        await socket.say({"type": "ping"})
        assert await socket.hear() == {"type": "pong"}
        await socket.init(token)
        await socket.say({"type": "ping", "payload": {"a": 1}})
        assert await socket.hear() == {"type": "pong", "payload": {"a": 1}}
        await socket.say({"type": "pong", "payload": None})
        await socket.say({"type": "ping", "payload": None})
        assert await socket.hear() == {"type": "pong"}


@pytest.mark.parametrize("payload", [{}, {"payload": None}, {"payload": {}}])
async def test_without_a_token_it_is_forbidden(server: Server, payload: dict[str, object]) -> None:
    before = told(server, "UNAUTHENTICATED")
    async with raw_socket(server) as socket:
        await socket.say({"type": "connection_init", **payload})
        code, reason = await socket.closed()
    assert code == 4403
    assert "no token" in reason
    assert told(server, "UNAUTHENTICATED") == before + 1


async def test_a_second_init_closes_with_4429(server: Server, token: str) -> None:
    async with raw_socket(server, token) as socket:
        await socket.say({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert (await socket.closed())[0] == 4429


async def test_who_says_nothing_is_closed_after_five_seconds(server: Server) -> None:
    async with raw_socket(server) as socket:
        began = time.monotonic()
        assert (await socket.closed())[0] == 4408
        assert 4 < time.monotonic() - began < 30


async def test_an_id_is_free_again_once_its_operation_has_ended(server: Server, token: str) -> None:
    async with raw_socket(server, token) as socket:
        for _ in range(3):
            await socket.say(subscribe("1", TYPENAME))
            assert (await socket.hear())["payload"] == DATA
            assert await socket.hear() == {"id": "1", "type": "complete"}
        await socket.say(subscribe("2", a_stream(LONG)))
        await socket.hear()
        await socket.say({"id": "2", "type": "complete"})
        await socket.say(subscribe("2", TYPENAME))
        while (message := await socket.hear())["payload"] != DATA:
            assert message["type"] == "next", "an event that was on its way"


@pytest.mark.parametrize(
    "mistake",
    [
        {"query": "{"},
        {"query": ""},
        {"query": "{ nothing }"},
        {"query": "query A { __typename }", "operationName": "B"},
        {"query": "fragment F on Query { __typename }"},
        {"query": "query ($n: Int!) { __typename }"},
        {"query": "{ a: __typename " + "x " * 10_000 + "}"},
    ],
)
async def test_a_bad_operation_does_its_siblings_no_harm(server: Server, token: str, mistake: dict[str, Any]) -> None:
    async with raw_socket(server, token) as socket:
        await socket.say(subscribe("good", a_stream("[[tokens=30]] [[pace=10]]")))
        await socket.say(subscribe("bad", mistake))
        seen: dict[str, list[dict[str, Any]]] = {"good": [], "bad": []}
        while not (seen["good"] and seen["good"][-1]["type"] == "complete"):
            message = await socket.hear()
            seen[message["id"]].append(message)
    (bad,) = seen["bad"]
    assert bad["type"] == "error"
    assert {error["extensions"]["code"] for error in bad["payload"]} <= {"BAD_USER_INPUT", "QUERY_TOO_COMPLEX"}
    finished = seen["good"][-2]["payload"]["data"]["completionStream"]
    assert finished["__typename"] == "CompletionFinished"


async def test_more_operations_than_a_socket_may_have_are_refused_one_by_one(server: Server, token: str) -> None:
    before = told(server, "RATE_LIMITED")
    async with raw_socket(server, token) as socket:
        for number in range(MAX_OPERATIONS):
            await socket.say(subscribe(str(number), a_stream("[[hang=0]]")))
        await socket.say(subscribe("more", TYPENAME))
        while (message := await socket.hear())["id"] != "more":
            assert message["type"] == "next"
        assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "RATE_LIMITED")
        assert told(server, "RATE_LIMITED") == before + 1
        await socket.say({"id": "0", "type": "complete"})
        await socket.say(subscribe("more", TYPENAME))
        while (message := await socket.hear())["id"] != "more":
            assert message["type"] == "next"
        assert message["payload"] == DATA


async def test_an_expired_token_closes_its_socket_though_nothing_runs(server: Server, organisation: str) -> None:
    async with raw_socket(server, server.token(organisation, lifetime_s=5)) as socket:
        began = time.monotonic()
        assert (await socket.closed())[0] == 4401
        assert time.monotonic() - began < 30


async def test_and_ends_what_runs_there(server: Server, vendor: Vendor, organisation: str) -> None:
    async with raw_socket(server, server.token(organisation, lifetime_s=5)) as socket:
        await socket.say(subscribe("1", a_stream(LONG, own_model("openai", organisation))))
        await until(lambda: vendor.tally("openai", organisation).get("open"))
        assert (await socket.closed())[0] == 4401
        await closed_in(vendor, "openai", organisation)


async def test_a_flood_of_operations_that_are_left_at_once(server: Server, vendor: Vendor, token: str) -> None:
    """None of them stays behind, and the socket serves on."""
    organisation = "flood"
    model = own_model("openai", organisation)
    async with raw_socket(server, token) as socket:
        for number in range(300):
            await socket.say(subscribe(str(number), a_stream("[[hang=0]]", model)))
            await socket.say({"id": str(number), "type": "complete"})
        await socket.say(subscribe("last", TYPENAME))
        while (await socket.hear()).get("id") != "last":
            pass
    await closed_in(vendor, "openai", organisation)


async def test_sockets_that_are_torn_off_leave_nothing(server: Server, token: str) -> None:
    async def torn() -> None:
        async with raw_socket(server, token) as socket:
            await socket.say(subscribe("1", a_stream(LONG)))
            await socket.hear()
            socket.writer.transport.abort()

    await asyncio.gather(*(torn() for _ in range(30)))
    async with raw_socket(server, token) as socket:
        await socket.say(subscribe("1", TYPENAME))
        assert (await socket.hear())["payload"] == DATA


# Who may open one


async def handshake(server: Server, *headers: str) -> int:
    """The status that a handshake with these headers is answered with."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        async with asyncio.timeout(60):
            lines = "".join(f"{each}\r\n" for each in headers)
            writer.write(f"{HANDSHAKE}{PROTOCOL}{lines}\r\n".encode())
            return int((await reader.readuntil(b"\r\n\r\n")).split()[1])
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 101),
        (["origin: http://127.0.0.1"], 101),
        (["origin: https://evil.example"], 403),
        (["origin: null"], 403),
        (["origin: http://127.0.0.1.evil.example"], 403),
        (["origin: http://127.0.0.1:1"], 403),
        (["origin: http://127.0.0.1", "origin: https://evil.example"], 400),
        (["authorization: Bearer a", "authorization: Bearer b"], 403),
    ],
)
async def test_only_pages_of_its_own_may_open_one(server: Server, headers: list[str], status: int) -> None:
    assert await handshake(server, *headers) == status


@pytest.mark.parametrize(
    ("headers", "status"), [([f"x-{number}: {'y' * 8000}" for number in range(7)], 101), (["x: y"] * 8000, 400)]
)
async def test_a_large_handshake_is_answered(server: Server, headers: list[str], status: int) -> None:
    assert await handshake(server, *headers) == status


async def test_another_protocol_is_told_so(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(60):
        writer.write(f"{HANDSHAKE}sec-websocket-protocol: graphql-ws\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        assert (await RawSocket(reader, writer).closed())[0] == 4406
    writer.close()


@pytest.mark.soak
async def test_a_socket_on_which_nothing_happens_stays_open(server: Server, token: str) -> None:
    """As long as its peer answers pings, of which there is one each 20 seconds."""
    async with raw_socket(server, token) as socket:
        for _ in range(2):
            opcode, data = await socket.receive()
            assert opcode == PING
            await socket.send(frame(PONG, data))
        await socket.say(subscribe("1", TYPENAME))
        assert (await socket.hear())["payload"] == DATA
