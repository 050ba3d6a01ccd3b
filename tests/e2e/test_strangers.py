"""What comes from somebody without a token costs the real server little CPU, whatever it is, on every transport."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import httpx
import psutil
import pytest

from gateway.connections import MAX_HEAD_BYTES

from .processes import Server
from .raw_socket import CONTINUATION, HANDSHAKE, PING, PROTOCOL, TEXT, frame

MOST_CPU_S = 0.1
"""The most that is seen here is 45 ms."""
TRIES = 4
"""The kernel counts in hundredths of a second, and something else may be under way in the server."""
POST = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
SOCKET = f"{HANDSHAKE}{PROTOCOL}\r\n".encode()
MEGABYTE = b"x" * 1024 * 1024

CRUMBS = 60_000
"""More than anything may come in. A pause after each keeps it from being read together with the next."""
PAUSE_S = 1e-5


def cost(server: Server, *answered: bytes, then: Sequence[bytes] = ()) -> float:
    """In seconds of CPU: of what is sent and answered, one after the other, and of what follows piece by piece.
    Returns when the server is through with it."""
    process = psutil.Process(server.process.pid)
    before = process.cpu_times()
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for each in answered:
            client.sendall(each)
            client.recv(1 << 16)
        for piece in then:
            client.sendall(piece)
            if len(then) >= CRUMBS:
                time.sleep(PAUSE_S)
        client.shutdown(socket.SHUT_WR)
        while client.recv(1 << 16):
            pass
    httpx.get(f"http://127.0.0.1:{server.port}/healthcheck", timeout=60).raise_for_status()
    after = process.cpu_times()
    return float(after.user + after.system - before.user - before.system)


def check(measured: Callable[[], float]) -> None:
    costs = []
    for _ in range(TRIES):
        costs.append(measured())
        if costs[-1] < MOST_CPU_S:
            return
    raise AssertionError(costs)


def filled(unit: bytes) -> bytes:
    """A head as large as it may be, of lines like this."""
    return POST + unit * ((MAX_HEAD_BYTES - len(POST)) // len(unit) - 1) + b"\r\n"


def post(headers: bytes, body: bytes = b"") -> bytes:
    return POST + headers + b"content-length: %d\r\n\r\n" % len(body) + body


def get(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n"


def document(text: str) -> bytes:
    return post(b"", json.dumps({"query": text}).encode())


REQUESTS = {
    "a header often": filled(b"a:\r\n"),
    "many headers": POST + b"".join(b"%x:\r\n" % number for number in range(9_000)) + b"\r\n",
    "a header that must be single, often": filled(b"host:x\r\n"),
    "a large header": post(b"a: " + b"b" * 64_000 + b"\r\n"),
    "many media types": post(b"accept: " + b"a," * 32_000 + b"\r\n"),
    "many parameters of one": post(b"accept: a" + b";q=1" * 16_000 + b"\r\n"),
    "a media type that is liked to 60,000 digits": post(b"accept: a;q=0." + b"1" * 60_000 + b"\r\n"),
    "a large token": post(b"authorization: Bearer " + b"x" * 60_000 + b"\r\n"),
    "a token whose head is nested": post(b"authorization: Bearer " + b"W1tb" * 2_000 + b".e30.e30\r\n"),
    "a long key": post(b"authorization: Bearer aim_" + b"a" * 60_000 + b"\r\n"),
    "many forwarders": post(b"x-forwarded-for: " + b"127.0.0.1," * 6_000 + b"\r\n"),
    "a large query": get(b"/graphql?query=" + b"%41" * 21_000),
    "a large link to a report": get(b"/usage.csv?report=" + b"%41" * 20_000 + b"&signature=x"),
    "a large link to a file": get(b"/files?file=" + b"%C3%A9" * 10_000 + b"&signature=x"),
    "a long path": get(b"/" + b"%C3%28a" * 9_000),
    "many headers of a handshake": f"{HANDSHAKE}{PROTOCOL}".encode() + b"a:\r\n" * 15_000 + b"\r\n",
    "many protocols": HANDSHAKE.encode() + b"sec-websocket-protocol: " + b"a," * 3_900 + b"\r\n\r\n",
    "a body as large as it may be": post(b"", b'{"query": "' + b"x" * 4_000_000 + b'"}'),
    "a body of the deepest JSON": post(b"", b"[" * 2_000_000 + b"]" * 2_000_000),
    "most aliases": document("{" + " ".join(f"a{number}: viewer {{ subject }}" for number in range(100_000)) + "}"),
    "most tokens": document("{" + "a " * 1_000_000 + "}"),
    "a form with files": post(b"content-type: multipart/form-data; boundary=x\r\n", b"--x\r\n\r\n" * 400_000),
    "events": post(b"accept: text/event-stream\r\n", b'{"query": "subscription { providerHealth { name } }"}'),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request(server: Server, name: str) -> None:
    check(lambda: cost(server, REQUESTS[name]))


def message(content: object) -> bytes:
    return frame(TEXT, json.dumps(content).encode())


BAD_TOKEN = message({"type": "connection_init", "payload": {"Authorization": "Bearer x"}})
FRAMES: dict[str, list[bytes]] = {
    "pings": [frame(PING, b"") * 5_000],
    "messages that are answered": [message({"type": "ping"}) * 1_000],
    "messages of nothing": [message({"type": "complete", "id": ""}) * 700],
    "a wide one": [message({"type": "ping", "payload": {"a": [1] * 10_000}})],
    "deep ones": [message({"type": "ping", "payload": json.loads('{"a":' * 100 + "1" + "}" * 100)}) * 30],
    "many parameters": [message({"type": "connection_init", "payload": {str(number): 1 for number in range(2_500)}})],
    "fragments": [frame(TEXT, b"", final=False) + frame(CONTINUATION, b"", final=False) * 4_000],
    "pings one by one": [frame(PING, b"")] * CRUMBS,
    "a frame byte by byte": [bytes([each]) for each in frame(PING, b"") * (CRUMBS // 6)],
    "a gigabyte": [frame(PING, b"") * 10_000, *[MEGABYTE] * 1_000],
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_before_anybody_is_known(server: Server, name: str) -> None:
    check(lambda: cost(server, SOCKET, then=FRAMES[name]))


@pytest.mark.parametrize("pings", [[frame(PING, b"") * 50_000] * 20, [frame(PING, b"")] * CRUMBS])
def test_frames_after_a_refusal(server: Server, pings: list[bytes]) -> None:
    check(lambda: cost(server, SOCKET, BAD_TOKEN, then=pings))


LATE: dict[str, tuple[bytes, list[bytes]]] = {
    "a gigabyte": (POST + b"content-length: 3000000000\r\n\r\n", [MEGABYTE] * 1_000),
    "bytes one by one": (POST + b"content-length: 3000000000\r\n\r\n", [b"x"] * CRUMBS),
    "chunks of a byte": (CHUNKED, [b"1\r\ny\r\n" * 10_000] * 300),
    "chunks whose extensions are large": (CHUNKED, [b"1;" + b"e" * 60_000 + b"\r\ny\r\n"] * 3_000),
    "trailers": (CHUNKED, [b"0\r\n" + b"a:b\r\n" * 12_000 + b"\r\n"]),
}


@pytest.mark.parametrize("name", LATE)
def test_a_body_that_comes_after_its_refusal(server: Server, name: str) -> None:
    head, body = LATE[name]
    check(lambda: cost(server, head, then=body))


def test_a_head_byte_by_byte(server: Server) -> None:
    check(lambda: cost(server, then=[POST + b"a: ", *[b"b"] * CRUMBS]))
