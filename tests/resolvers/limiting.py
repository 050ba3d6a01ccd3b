"""The limiter of a scene: one of two processes, where it shares anything."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial

from persistence.memory_reservations import MemoryReservations
from resolvers.ledger import Ledger
from resolvers.limit_cache import LimitCache
from resolvers.limits import Limiter, Shared, open_limiter
from tests.persistence.limits import MemoryLimits


def limiter_in(
    store: MemoryLimits, ledger: Ledger, shared: Shared | None = None
) -> AbstractAsyncContextManager[Limiter]:
    clock = asyncio.get_running_loop().time
    cache, local = LimitCache(store, clock), MemoryReservations(clock)
    return open_limiter(cache, ledger, local, shared, share=2, now=partial(datetime.now, UTC), clock=clock)
