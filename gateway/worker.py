"""The worker process: `ai-middleware worker`."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import structlog
import uvloop

from resolvers.worker import working

from .runtime import handlers
from .settings import Settings, SettingsError
from .stores import open_rabbit_queue, open_timescale
from .telemetry import configure_logging

log = structlog.get_logger("worker")


def run_worker(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT; ends what is in hand first. Raises SettingsError where it can't start."""
    if settings.QUEUE_CONNECTIONURL is None:
        raise SettingsError(
            "QUEUE_CONNECTIONURL: is not set. The embedded queue is worked on by the server itself, which needs no"
            " worker beside it"
        )
    if settings.TIMESCALE_SERVICE_URL is None:
        raise SettingsError("TIMESCALE_SERVICE_URL: is not set, and a worker books into it what waited")
    configure_logging(settings.ENVIRONMENT)
    uvloop.run(_run(settings))


async def _run(settings: Settings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as stack:
        ledger = await open_timescale(settings, stack)
        queue = await open_rabbit_queue(settings, stack)
        await stack.enter_async_context(working(queue, handlers(ledger), prefetch=settings.PREFETCH_COUNT))
        log.info("the worker takes jobs", queue=settings.QUEUE_NAME, prefetch=settings.PREFETCH_COUNT)
        await stopped.wait()
        log.info("the worker ends what it has in hand")
