"""A channel that is listened to for as long as it is open, whatever becomes of the server between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog

from persistence.ports import Events, StoreUnavailableError

from .beside import beside

RETRY_S = 1.0

log = structlog.get_logger("siblings")


@asynccontextmanager
async def heeding(events: Events, channel: str, heed: Callable[[str], Awaitable[None]]) -> AsyncIterator[None]:
    """Entered when it listens, or when that was tried in vain: then it is tried again."""
    tried = asyncio.Event()
    async with beside(f"heeding {channel}", partial(_go_on, events, channel, heed, tried)):
        await tried.wait()
        yield


async def _go_on(events: Events, channel: str, heed: Callable[[str], Awaitable[None]], tried: asyncio.Event) -> None:
    while True:
        try:
            async with events.listen(channel) as messages:
                tried.set()
                async for message in messages:
                    await heed(message)
        except StoreUnavailableError as error:
            if not tried.is_set():
                log.warning("other processes are not heard of yet", reason=str(error))
        finally:
            tried.set()
        await asyncio.sleep(RETRY_S)
