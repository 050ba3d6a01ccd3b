"""An upload in parts, broken off cleanly where its source breaks or its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine
from typing import Any

PART_BYTES = 5 * 1024 * 1024
"""S3 takes 10,000 parts of at least 5 MiB: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html"""

BREAK_OFF_TIMEOUT_S = 10.0


class _BrokenOffError(Exception):
    """What the sender is told of an upload that comes to nothing."""


async def parts_of(content: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes, PART_BYTES at once; the last part has what is left, if anything is."""
    buffer = bytearray()
    async for chunk in content:
        buffer += chunk
        while len(buffer) >= PART_BYTES:
            yield bytes(memoryview(buffer)[:PART_BYTES])
            del buffer[:PART_BYTES]
    if buffer:
        yield bytes(buffer)


async def send_in_parts(
    send: Callable[[AsyncIterator[bytes]], Coroutine[Any, Any, None]], first: bytes, others: AsyncIterable[bytes]
) -> int:
    """Sent bytes. `send` takes all parts, and forgets what it has sent where they break, by which it is told of a
    cancellation too: were it cancelled itself, the parts would stay in the store, unseen and paid for."""
    handover = _Handover()
    sending = asyncio.create_task(send(handover), name="upload")
    sending.add_done_callback(handover.stop)
    try:
        size = await handover.give(first)
        async for part in others:
            if sending.done():
                break
            size += await handover.give(part)
        handover.end()
        await asyncio.shield(sending)
    except BaseException:  # a cancellation too: the sender must hear of it
        await _broken_off(handover, sending)
        raise
    return size


async def _broken_off(handover: _Handover, sending: asyncio.Task[None]) -> None:
    handover.break_off()
    try:
        await asyncio.wait([sending], timeout=BREAK_OFF_TIMEOUT_S)
    finally:
        if not sending.cancel() and not sending.cancelled():
            sending.exception()  # seen: the caller hears of what came first


class _Handover:
    """Parts from the task that makes them to the one that sends them, one waiting at most."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(1)
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._broken = False

    async def give(self, part: bytes) -> int:
        """Its size, once there is room for it, or nobody takes any more."""
        await self._free.acquire()
        self._waiting.put_nowait(part)
        return len(part)

    def end(self) -> None:
        self._waiting.put_nowait(None)

    def break_off(self) -> None:
        self._broken = True
        self.end()

    def stop(self, _sending: object) -> None:
        self._free.release()

    def __aiter__(self) -> _Handover:
        return self

    async def __anext__(self) -> bytes:
        part = await self._waiting.get()
        if self._broken:
            raise _BrokenOffError
        if part is None:
            raise StopAsyncIteration
        self._free.release()
        return part
