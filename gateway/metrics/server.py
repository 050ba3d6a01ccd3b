"""What a server and a worker look at, beside what they are told."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from persistence.ports import JobQueue

from ..readiness import Dependency
from .sources import (
    look_at_caches,
    look_at_capacity,
    look_at_completions,
    look_at_disk,
    look_at_keys,
    look_at_ledger,
    look_at_queue,
    look_at_servers,
)

if TYPE_CHECKING:
    from ..runtime import Runtime
    from ..stores import Stores
    from .opening import WorkerProcess


def watching(runtime: Runtime, stores: Stores) -> AbstractAsyncContextManager[None]:
    metrics, services = runtime.metrics, runtime.services
    instruments = metrics.instruments
    caches = {
        "token": runtime.authenticator.counts,
        "api_key": services.api_keys.cache.counts,
        "provider_key": services.provider_keys.counts,
        "config": services.configs.cache.counts,
        "price": services.prices.cache.counts,
        "limit": services.limits.cache.counts,
    }
    return metrics.watching(
        [
            look_at_caches(instruments, caches),
            look_at_capacity(instruments, runtime.capacity),
            look_at_completions(instruments, services.running, services.circuits, tuple(services.vendors)),
            look_at_ledger(instruments, services.ledger, stores.inflight),
        ],
        [
            look_at_queue(instruments, stores.queue, metrics.jobs),
            look_at_servers(instruments, runtime.own_troubles, runtime.servers),
            look_at_keys(instruments, services.api_keys.cache),
            look_at_disk(instruments, runtime.settings.DATA_DIR),
        ],
    )


def watching_worker(
    metrics: WorkerProcess, queue: JobQueue, servers: Sequence[Dependency]
) -> AbstractAsyncContextManager[None]:
    looks = (
        look_at_queue(metrics.instruments, queue, metrics.jobs),
        look_at_servers(metrics.instruments, tuple, servers),
    )
    return metrics.watching((), looks)
