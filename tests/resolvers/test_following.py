"""Caches that follow what other processes write, over a feed that breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any, cast

import pytest
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
from persistence.ports import ConfigStore, StoreUnavailableError
from resolvers.config_cache import ConfigCache
from resolvers.following import FIRST_WAIT_S, MAX_WAIT_S, following
from resolvers.following import Caches as FollowingCaches
from resolvers.key_cache import KeyCache
from resolvers.limit_cache import LimitCache
from resolvers.price_cache import PriceCache
from tests.persistence.api_keys import MemoryApiKeys
from tests.persistence.entries import NOON
from tests.persistence.limits import MemoryLimits
from tests.persistence.prices import MemoryPrices
from tests.persistence.provider_keys import MemoryProviderKeys

from .clockwork import idle
from .scene import NoConfigs, provider_keys_in


class Caches:
    """What they were told of."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.configs = ConfigCache(cast("ConfigStore", NoConfigs()), lambda: 0.0)
        self.prices = PriceCache(MemoryPrices(), lambda: 0.0, lambda: NOON)
        self.keys = KeyCache(MemoryApiKeys(), lambda: 0.0)
        self.keys.outdate = lambda *key: self.told.append(key)  # type: ignore[method-assign]
        self.keys.outdate_all = lambda: self.told.append("every key")  # type: ignore[method-assign]
        self.provider_keys = provider_keys_in(MemoryProviderKeys())
        self.provider_keys.outdate = lambda organisation: self.told.append(f"keys of {organisation}")  # type: ignore[method-assign]
        self.provider_keys.outdate_all = lambda: self.told.append("all provider keys")  # type: ignore[method-assign]
        self.limits = LimitCache(MemoryLimits(), lambda: 0.0)
        self.limits.outdate = lambda organisation: self.told.append(f"limits of {organisation}")  # type: ignore[method-assign]
        self.limits.outdate_all = lambda: self.told.append("all limits")  # type: ignore[method-assign]
        self.configs.outdate = lambda *key: self.told.append(key)  # type: ignore[method-assign]
        self.configs.outdate_all = lambda: self.told.append("every config")  # type: ignore[method-assign]
        self.prices.outdate = lambda organisation: self.told.append(organisation)  # type: ignore[method-assign]
        self.prices.outdate_all = lambda: self.told.append("all prices")  # type: ignore[method-assign]

    def all(self) -> FollowingCaches:
        return FollowingCaches(self.configs, self.prices, self.keys, self.provider_keys, self.limits)


class Feed:
    """Plays one script after the other, then says nothing. An error in a script is raised."""

    def __init__(self, *scripts: list[Change | Exception]) -> None:
        self.scripts = list(scripts)
        self.asked: list[float] = []
        self.closed = 0

    async def changes(self) -> AsyncGenerator[Change, None]:
        self.asked.append(asyncio.get_running_loop().time())
        try:
            for step in self.scripts.pop(0) if self.scripts else ():
                if isinstance(step, Exception):
                    raise step
                yield step
            if not self.scripts:
                await asyncio.Event().wait()
        finally:
            self.closed += 1


async def test_each_cache_hears_of_its_own() -> None:
    caches = Caches()
    feed = Feed(
        [
            ConfigChanged("acme", "greet"),
            PricesChanged("globex"),
            ApiKeyChanged("acme", "key_1"),
            ProviderKeysChanged("acme"),
            LimitsChanged("acme"),
            AnythingChanged(),
        ]
    )
    async with following(feed, caches.all()):
        await idle()
    told = [("acme", "greet"), "globex", ("acme", "key_1"), "keys of acme", "limits of acme"]
    assert caches.told == [*told, "every config", "all prices", "every key", "all provider keys", "all limits"]
    assert feed.closed == 1, "the feed ends with its reader"


GONE = StoreUnavailableError("gone")


async def test_a_feed_that_breaks_off_is_asked_anew_more_and_more_seldom() -> None:
    caches = Caches()
    feed = Feed(*[[GONE]] * 10, [PricesChanged("acme"), GONE], [PricesChanged("globex")])
    with structlog.testing.capture_logs() as logs:
        async with following(feed, caches.all()):
            with suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await asyncio.Event().wait()
    assert caches.told == ["acme", "globex"]
    waits = [later - earlier for earlier, later in zip(feed.asked, feed.asked[1:], strict=False)]
    for number, wait in enumerate(waits[:10]):
        longest = min(FIRST_WAIT_S * 2**number, MAX_WAIT_S)
        assert longest / 2 <= wait <= longest
    assert waits[10] <= FIRST_WAIT_S, "it had answered"
    assert [each["reason"] for each in logs] == ["gone", "gone"], "told once for each time that it goes"


@pytest.mark.parametrize("script", [[KeyError("a defect")], []])
async def test_whatever_ends_the_feed_it_goes_on(script: list[Change | Exception]) -> None:
    caches = Caches()
    feed = Feed(script, [PricesChanged("acme")])
    with structlog.testing.capture_logs():
        async with following(feed, caches.all()):
            await asyncio.sleep(1)
    assert caches.told == ["acme"]
