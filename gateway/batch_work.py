"""Batches put together: what the schema asks of, and the dispatcher and the worker beside it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from resolvers.batches.cases import Batches
from resolvers.batches.dispatching import Dispatcher, dispatching
from resolvers.batches.events import WebhookEvents
from resolvers.batches.finishing import Finisher
from resolvers.batches.forgetting import Forgetter
from resolvers.batches.moving import open_mover
from resolvers.batches.progress import BatchProgress
from resolvers.batches.running import ItemRunner
from resolvers.batches.vendor_runs import VendorRuns
from resolvers.batches.working import ItemWorker, working
from resolvers.configs import Configs
from resolvers.prices import Prices
from resolvers.run import Services
from resolvers.tracing import Tracer
from resolvers.webhooks import Webhooks

from .settings import Settings
from .stores import Stores

log = structlog.get_logger("batches")

NEEDED = ("MONGODB_CONNECTION_URI", "QUEUE_CONNECTIONURL", "OBJECT_STORE_URL")
"""What a worker of batches has in common with the servers that accept them."""
SERVER_DRAIN_S = 3.0
WORKER_DRAIN_S = 20.0
"""For so long items may take to their ends when the process is to end: a server has answers to give, too."""


def refusal(settings: Settings) -> str | None:
    """Why no batch is accepted: neither this process works on batches nor could any worker. None where one can."""
    lacking = [name for name in NEEDED if getattr(settings, name) is None]
    if settings.CONSUMER_STATUS or not lacking:
        return None
    return f"nobody could work on batches here: servers and workers need {' and '.join(lacking)}"


def batches_of(
    settings: Settings,
    stores: Stores,
    configs: Configs,
    prices: Prices,
    webhooks: Webhooks,
    tracer: Tracer,
    now: Callable[[], datetime],
) -> Batches:
    store, refused = stores.documents.batches, refusal(settings)
    if refused is not None:
        log.warning("batches are refused", reason=refused)
    progress = BatchProgress(store, now)
    wake, objects = stores.bell.set, stores.objects
    return Batches(store, objects, configs, prices, webhooks, progress, now, wake, refused=refused, tracer=tracer)


@asynccontextmanager
async def batch_work(
    stores: Stores,
    services: Services,
    tracer: Tracer,
    *,
    prefetch: int,
    drain_s: float,
    kept_for: timedelta,
    now: Callable[[], datetime],
) -> AsyncIterator[None]:
    """Batches are worked on here, and dispatched from here where this process leads."""
    store, objects, observer = stores.documents.batches, stores.objects, services.observer
    async with open_mover(store, observer) as mover:
        finisher = Finisher(store, objects, WebhookEvents(services.webhooks), now)
        keys = services.api_keys.cache
        runner = ItemRunner(services, objects, keys, mover, now, tracer)
        worker = ItemWorker(stores.items, store, mover, runner, prefetch=prefetch, drain_s=drain_s, now=now)
        vendors = VendorRuns(services, store, objects, keys, mover, now, tracer)
        forgetter = Forgetter(store, objects, kept_for, now)
        dispatcher = Dispatcher(
            store,
            stores.items,
            mover,
            finisher,
            forgetter,
            vendors,
            stores.bell,
            now=now,
            clock=time.monotonic,
            observer=observer,
            tracer=tracer,
        )
        async with working(worker), dispatching(dispatcher):
            yield
