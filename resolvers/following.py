"""Caches told of what other processes write."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from persistence.change_records import (
    AnythingChanged,
    ApiKeyChanged,
    Change,
    ConfigChanged,
    LimitsChanged,
    PricesChanged,
    ProviderKeysChanged,
)
from persistence.ports import ChangeFeed, StoreUnavailableError

from .config_cache import ConfigCache
from .key_cache import KeyCache
from .limit_cache import LimitCache
from .price_cache import PriceCache
from .provider_keys import ProviderKeys

FIRST_WAIT_S = 0.1
MAX_WAIT_S = 5.0

log = structlog.get_logger("changes")


@dataclass(frozen=True, slots=True)
class Caches:
    """What has to hear of others' writes."""

    configs: ConfigCache
    prices: PriceCache
    api_keys: KeyCache
    provider_keys: ProviderKeys
    limits: LimitCache


@asynccontextmanager
async def following(feed: ChangeFeed, caches: Caches) -> AsyncIterator[None]:
    """Follows the feed while it is open. Where the feed breaks off, it is asked anew, after a wait that doubles up to
    MAX_WAIT_S; meanwhile the caches' own time limits hold."""
    task = asyncio.create_task(_Follower(feed, caches).follow(), name="changes")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _Follower:
    def __init__(self, feed: ChangeFeed, caches: Caches) -> None:
        self._feed = feed
        self._caches = caches
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
        caches = self._caches
        match change:
            case ConfigChanged(organisation, slug):
                caches.configs.outdate(organisation, slug)
            case PricesChanged(organisation):
                caches.prices.outdate(organisation)
            case ApiKeyChanged(organisation, key_id):
                caches.api_keys.outdate(organisation, key_id)
            case ProviderKeysChanged(organisation):
                caches.provider_keys.outdate(organisation)
            case LimitsChanged(organisation):
                caches.limits.outdate(organisation)
            case AnythingChanged():
                caches.configs.outdate_all()
                caches.prices.outdate_all()
                caches.api_keys.outdate_all()
                caches.provider_keys.outdate_all()
                caches.limits.outdate_all()
