"""Caches told of what other processes write."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

import structlog

from persistence.change_records import AnythingChanged, ApiKeyChanged, Change, ConfigChanged, PricesChanged
from persistence.ports import ChangeFeed, StoreUnavailableError

from .config_cache import ConfigCache
from .key_cache import KeyCache
from .price_cache import PriceCache

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0

log = structlog.get_logger("changes")


@asynccontextmanager
async def following(feed: ChangeFeed, configs: ConfigCache, prices: PriceCache, keys: KeyCache) -> AsyncIterator[None]:
    """Follows the feed while it is open. Where the feed breaks off, it is asked anew, after a wait that doubles up to
    MAX_WAIT_S; meanwhile the caches' own time limits hold."""
    task = asyncio.create_task(_Follower(feed, configs, prices, keys).follow(), name="changes")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _Follower:
    def __init__(self, feed: ChangeFeed, configs: ConfigCache, prices: PriceCache, keys: KeyCache) -> None:
        self._feed = feed
        self._configs = configs
        self._prices = prices
        self._keys = keys
        self._wait_s = FIRST_WAIT_S

    async def follow(self) -> None:
        while True:
            try:
                await self._read()
                reason = "it ended"
            except StoreUnavailableError as error:
                reason = str(error)
            except Exception as error:  # a defect of ours: the caches must hear of the rest all the same
                log.exception("a change could not be followed")
                reason = type(error).__name__
            if self._wait_s == FIRST_WAIT_S:
                log.warning("changes of other processes are not heard of at once", reason=reason)
            await asyncio.sleep(self._wait_s * random.uniform(0.5, 1))  # noqa: S311  # jitter
            self._wait_s = min(self._wait_s * 2, MAX_WAIT_S)

    async def _read(self) -> None:
        async with aclosing(self._feed.changes()) as changes:
            async for change in changes:
                self._wait_s = FIRST_WAIT_S
                self._tell(change)

    def _tell(self, change: Change) -> None:
        match change:
            case ConfigChanged(organisation, slug):
                self._configs.outdate(organisation, slug)
            case PricesChanged(organisation):
                self._prices.outdate(organisation)
            case ApiKeyChanged(organisation, key_id):
                self._keys.outdate(organisation, key_id)
            case AnythingChanged():
                self._configs.outdate_all()
                self._prices.outdate_all()
                self._keys.outdate_all()
