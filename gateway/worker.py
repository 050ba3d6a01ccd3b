"""The worker process: `ai-middleware worker`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

import structlog
import uvloop

from persistence.ports import JobQueue
from resolvers.worker import working

from .internal_pages import internal_pages, internal_server
from .readiness import Dependency, readiness
from .runtime import handlers
from .settings import Environment, Settings, SettingsError
from .stores import RABBITMQ, TIMESCALE, open_rabbit_queue, open_timescale
from .telemetry import configure_logging
from .tracing.opening import open_tracing
from .tracing.port import traced

if TYPE_CHECKING:
    from .metrics.opening import Metrics

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
        tracing = await stack.enter_async_context(open_tracing(settings))
        jobs = traced(handlers(ledger), tracing)
        servers = [Dependency(TIMESCALE, ledger.look, spared=True), Dependency(RABBITMQ, queue.look, spared=True)]
        metrics = await _open_metrics(settings, tuple(jobs), queue, servers, stack)
        await stack.enter_async_context(working(queue, jobs, prefetch=settings.PREFETCH_COUNT, observer=metrics.jobs))
        log.info("the worker takes jobs", queue=settings.QUEUE_NAME, prefetch=settings.PREFETCH_COUNT)
        await stopped.wait()
        log.info("the worker ends what it has in hand")


async def _open_metrics(
    settings: Settings, kinds: Sequence[str], queue: JobQueue, servers: Sequence[Dependency], stack: AsyncExitStack
) -> Metrics:
    """On INTERNAL_PORT. With LOCAL, where several processes may share a machine, the worker works without it too."""
    from .metrics.opening import WorkerProcess
    from .metrics.sources import look_at_queue, look_at_servers

    metrics = WorkerProcess(kinds)
    looks = (
        look_at_queue(metrics.instruments, queue, metrics.jobs),
        look_at_servers(metrics.instruments, tuple, servers),
    )
    await stack.enter_async_context(metrics.watching((), looks))
    pages = internal_pages(partial(readiness, (), servers), metrics)
    try:
        await stack.enter_async_context(internal_server(settings, pages))
    except SettingsError as error:
        if settings.ENVIRONMENT is Environment.PRODUCTION:
            raise
        log.warning("no /metrics and no /readyz of this worker", reason=str(error))
    return metrics
