"""Work that goes on beside what a process is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

REST_S = 1.0
AGAIN_S = 25.0
"""A cancellation may be lost: Python 3.11's `asyncio.wait_for`, which drivers use, swallows one that comes as what it
waits for is done (https://github.com/python/cpython/issues/86296). What heeds it has ended long before, a worker's jobs
in hand included."""

log = structlog.get_logger("tasks")


@asynccontextmanager
async def beside(name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Endless work in a task of its own. A defect that ends it is logged, and it is begun anew after REST_S."""
    task = asyncio.create_task(_endlessly(name, work), name=name)
    try:
        yield
    finally:
        await end(task)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancels tasks whose work is endless, and waits until all have ended."""
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=AGAIN_S)


async def _endlessly(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # whatever it is, nobody else would do this work until the next start
            log.exception("begun anew after a defect", work=name)
        await asyncio.sleep(REST_S)
