"""How long a client may leave an answer unread is bounded."""

from __future__ import annotations

import asyncio

import pytest

from gateway import connections

from .wire import GET, POST, UPGRADE, ServerSide, Slow, connected

MORE_THAN_KERNELS_HOLD = b"x" * (32 * 1024 * 1024)


@pytest.mark.parametrize("close", [False, True])
async def test_an_answer_that_nobody_reads_is_given_up(close: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 0.05)
    app = Slow(MORE_THAN_KERNELS_HOLD, close=close)
    app.free.set()
    side = ServerSide()
    async with connected(app, side) as (_, writer):
        writer.transport.pause_reading()
        writer.write(GET)
        await side.lost.wait()


@pytest.mark.parametrize(
    "last",
    [POST + b"content-length: 2\r\n\r\nx", b"no request at all\r\n\r\n", UPGRADE + b"content-length: 5\r\n\r\n"],
    ids=["408", "400", "upgrade"],
)
async def test_a_refusal_that_nobody_reads_is_given_up(last: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers before it may fill the kernel's buffers without passing the transport's high-water mark."""
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 0.05)
    monkeypatch.setattr(connections, "BODY_TIMEOUT_S", 0.05)
    app = Slow(b"x" * 16 * 1024)
    app.free.set()
    side = ServerSide()
    async with connected(app, side) as (_, writer):
        writer.transport.pause_reading()
        while not (side.transport and side.transport.get_write_buffer_size()):
            app.answered.clear()
            writer.write(GET)
            await app.answered.wait()
        writer.write(last)
        await side.lost.wait()


async def test_one_that_is_read_slowly_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 1.0)
    app = Slow(MORE_THAN_KERNELS_HOLD)
    app.free.set()
    async with connected(app) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        left = len(MORE_THAN_KERNELS_HOLD)
        while left:
            left -= len(await reader.readexactly(min(left, 4 * 1024 * 1024)))
            await asyncio.sleep(0.15)  # eight times: longer than the bound
