"""The worker process: `ai-middleware worker`."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog
import uvloop

from persistence.migrations.sqlite import migrate
from persistence.ports import StoreUnavailableError
from resolvers.worker import working

from .batch_work import NEEDED
from .heartbeat import Heartbeat, add_liveness
from .internal import add_metrics, add_readiness, internal_pages, internal_server
from .listening import listen
from .readiness import Dependency, readiness
from .runtime import handlers, open_runtime
from .settings import Settings, SettingsError
from .stores import DATABASE_FILE, RABBITMQ, TIMESCALE, open_documents, open_rabbit_queue, open_timescale
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
    try:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True)  # at the start, with nobody to wait
        migrate(settings.DATA_DIR / DATABASE_FILE)
    except (OSError, StoreUnavailableError) as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
    async with AsyncExitStack() as stack:
        await (_open_jobs if _lacks_batches(settings) else _open_all)(settings, stack)
        log.info("the worker takes jobs", queue=settings.QUEUE_NAME, prefetch=settings.PREFETCH_COUNT)
        await stopped.wait()
        log.info("the worker ends what it has in hand")


def _lacks_batches(settings: Settings) -> bool:
    """Where what items take is not in common with the servers, none is worked on."""
    lacking = [name for name in NEEDED if getattr(settings, name) is None]
    if lacking:
        log.warning("no batches are worked on here", lacking=lacking)
    return bool(lacking)


async def _open_jobs(settings: Settings, stack: AsyncExitStack) -> None:
    """Of the ledger alone: that takes two servers, and a place to count failures in."""
    from .metrics.opening import WorkerProcess
    from .metrics.server import watching_worker

    ledger = await open_timescale(settings, stack)
    servers = [Dependency(TIMESCALE, ledger.look, spared=True)]
    documents = await open_documents(settings, stack, servers)
    queue = await open_rabbit_queue(settings, stack, documents.failures)
    servers.append(Dependency(RABBITMQ, queue.look, spared=True))
    heartbeat = Heartbeat(time.monotonic)
    tracing = await stack.enter_async_context(open_tracing(settings))
    jobs = traced(handlers(ledger), tracing)
    metrics = WorkerProcess(tuple(jobs))
    if settings.worker_port is not None:
        await stack.enter_async_context(watching_worker(metrics, queue, servers))
        await _open_internal(settings, stack, heartbeat, servers, metrics)
    watched = heartbeat.over(jobs)
    await stack.enter_async_context(working(queue, watched, prefetch=settings.PREFETCH_COUNT, observer=metrics.jobs))


async def _open_all(settings: Settings, stack: AsyncExitStack) -> None:
    """Items are asked for as a server asks: by all that it has, and seen as its completions are."""
    heartbeat = Heartbeat(time.monotonic)
    runtime = await stack.enter_async_context(open_runtime(settings, worker=heartbeat))
    if settings.worker_port is not None:
        await _open_internal(settings, stack, heartbeat, runtime.servers, runtime.metrics)


async def _open_internal(
    settings: Settings, stack: AsyncExitStack, heartbeat: Heartbeat, servers: Sequence[Dependency], metrics: Metrics
) -> None:
    """The internal port: `/healthcheck` tells whether to restart this worker, `/readyz` what it is without."""
    listener = stack.enter_context(listen(settings.HOST, settings.INTERNAL_PORT, variable="INTERNAL_PORT"))
    pages = internal_pages()
    add_liveness(pages, heartbeat)
    add_readiness(pages, lambda: readiness([], servers))
    add_metrics(pages, metrics)
    await stack.enter_async_context(internal_server(pages, listener))
