"""Readers that never read, and a vendor that writes as fast as it can: memory stays flat, and others are served."""

from __future__ import annotations

import base64
import secrets
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import orjson
import psutil

from .documents import COMPLETE, STREAM
from .processes import MODELS, Server, Vendor, post, running_server, server_environment
from .test_providers import asked

READERS = 200
PROMPT = "[[tokens=5000]] [[wide=4000]]"  # 20 MB for each reader, 4 GB for all: what must not pile up
PATIENCE_S = 120.0
QUIET_IN_A_ROW = 8  # quarters of a second
GROWTH_MIB = 1.5 * READERS  # what one reader may hold: a bound, whatever the vendor writes


def frame(message: object) -> bytes:
    """A client's text frame, masked with zeros (RFC 6455, 5.2 and 5.3)."""
    payload = orjson.dumps(message)
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return b"\x81" + length + b"\0\0\0\0" + payload


def stalled_reader(server: Server, token: str) -> socket.socket:
    """A socket with a subscription on it, and so small a receive buffer that not reading is felt at once."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    reader.sendall(
        f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n".encode()
    )
    assert reader.recv(1024).startswith(b"HTTP/1.1 101")
    reader.sendall(frame({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}))
    assert b"connection_ack" in reader.recv(1024)
    call = {"query": STREAM, "variables": {"input": asked("openai", PROMPT)}}
    reader.sendall(frame({"id": "1", "type": "subscribe", "payload": call}))
    assert b"CompletionStarted" in reader.recv(256)
    return reader


def settled(process: psutil.Process) -> float:
    """Resident memory once nothing moves any more: one quiet moment may be the vendor's, who waits for a core."""
    give_up = time.monotonic() + PATIENCE_S
    quiet, memory = 0, 0.0
    while quiet < QUIET_IN_A_ROW:
        assert time.monotonic() < give_up, "the server is never idle"
        used, before, memory = process.cpu_percent(interval=0.25), memory, float(process.memory_info().rss)
        quiet = quiet + 1 if used <= 5 and abs(memory - before) < 2**20 else 0
    return memory


def test_two_hundred_stalled_readers(vendor: Vendor, tmp_path: Path) -> None:
    with running_server(server_environment(tmp_path, vendor)) as server, ExitStack() as readers:
        token = server.token("stalled")
        for _ in range(5):
            post(server, token, COMPLETE, {"input": asked("openai", "Warm up.")})
        process = psutil.Process(server.process.pid)
        before = settled(process)
        for _ in range(READERS):
            readers.enter_context(stalled_reader(server, token))
        grown = (settled(process) - before) / 2**20
        assert vendor.tally("openai", MODELS["openai"])["open"] == READERS, "a reader did not stall its stream"
        assert grown < GROWTH_MIB, f"{grown:.0f} MiB more for {READERS} stalled readers"
        for _ in range(50):
            answer = post(server, token, COMPLETE, {"input": asked("openai", "Still served?")})
            assert answer["data"]["complete"]["content"].startswith("token0")
        later = (settled(process) - before) / 2**20
        assert later < grown + 10, f"{later - grown:.0f} MiB more while nobody read"
