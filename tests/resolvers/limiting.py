"""The limiter of a scene: one of two processes, where it shares anything."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial

from persistence.memory_reservations import MemoryReservations
from persistence.ports import BatchStore
from resolvers.batches.vendor_budgets import held_at_vendors
from resolvers.ledger import Ledger
from resolvers.limit_cache import LimitCache
from resolvers.limits import Limiter, Shared, open_limiter
from tests.persistence.limits import MemoryLimits


def limiter_in(
    store: MemoryLimits, ledger: Ledger, batches: BatchStore, shared: Shared | None = None
) -> AbstractAsyncContextManager[Limiter]:
    clock = asyncio.get_running_loop().time
    cache, local = LimitCache(store, clock), MemoryReservations(clock)
    outstanding, now = partial(held_at_vendors, batches), partial(datetime.now, UTC)
    return open_limiter(cache, ledger, local, outstanding, shared, share=2, now=now, clock=clock)
