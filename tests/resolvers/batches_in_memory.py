"""The use cases of batches on a store and files in memory, their time the loop's."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from persistence.ports import BatchStore, ObjectStore
from resolvers.batches.cases import Batches
from resolvers.batches.progress import BatchProgress
from resolvers.configs import Configs
from resolvers.prices import Prices
from resolvers.webhooks import Webhooks
from tests.persistence.entries import NOON
from tests.persistence.memory_batches import MemoryBatches, MemoryObjects


def loop_time() -> datetime:
    """Noon, and as much later as the loop has run."""
    return NOON + timedelta(seconds=asyncio.get_running_loop().time())


def batches_in(
    configs: Configs,
    prices: Prices,
    webhooks: Webhooks,
    store: BatchStore | None = None,
    objects: ObjectStore | None = None,
) -> Batches:
    store = store or MemoryBatches()
    progress = BatchProgress(store, loop_time)
    return Batches(store, objects or MemoryObjects(), configs, prices, webhooks, progress, loop_time, lambda: None)
