"""Work that goes on beside what a process is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

REST_S = 1.0

log = structlog.get_logger("tasks")


@asynccontextmanager
async def beside(name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Endless work in a task of its own. A defect that ends it is logged, and it is begun anew after REST_S."""
    task = asyncio.create_task(_endlessly(name, work), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _endlessly(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:  # whatever it is, nobody else would do this work until the next start
            log.exception("begun anew after a defect", work=name)
        await asyncio.sleep(REST_S)
