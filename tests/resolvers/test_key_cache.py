"""API keys at hand: how often the store is read, and what a flood of made-up keys does."""

from __future__ import annotations

import asyncio

import pytest

from persistence.key_records import PresentedKey
from persistence.ports import StoreUnavailableError
from resolvers import key_cache as module
from resolvers.key_cache import FRESH_S, MAX_READS, TRIAL_INTERVAL_S, UNKNOWN_S, USABLE_S, KeyCache
from tests.persistence.api_keys import MemoryApiKeys, api_key
from tests.persistence.audit import noted


class SlowStore(MemoryApiKeys):
    """Each read by digest takes a second; `most` of them were under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.running = self.most = 0

    async def by_digest(self, digest: str) -> PresentedKey | None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(1)
            return await super().by_digest(digest)
        finally:
            self.running -= 1


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
async def cache(store: SlowStore) -> KeyCache:
    await store.create(api_key(id="key_1"), "one", at_most=9, audit=noted)
    return KeyCache(store, asyncio.get_running_loop().time)


async def test_a_key_is_read_once_while_it_is_fresh_and_then_by_one_of_its_users(
    store: SlowStore, cache: KeyCache
) -> None:
    found = await cache.find("one")
    assert found is not None
    assert cache.at_hand("one") is found
    await asyncio.sleep(FRESH_S)
    assert cache.at_hand("one") is None
    loop = asyncio.get_running_loop()
    begun = loop.time()
    reader = asyncio.create_task(cache.find("one"))
    await asyncio.sleep(0)
    assert await cache.find("one") is found
    assert loop.time() == begun, "the others don't wait for him"
    assert await reader == found
    assert store.reads == 2


async def test_what_is_no_key_is_asked_for_anew_a_moment_later(store: SlowStore, cache: KeyCache) -> None:
    assert await cache.find("made up") is None
    assert await cache.find("made up") is None
    assert store.reads == 1
    await store.create(api_key(), "made up", at_most=9, audit=noted)
    await asyncio.sleep(UNKNOWN_S)
    assert await cache.find("made up") is not None


async def test_made_up_keys_drive_no_real_one_out_and_wait_for_their_like(
    store: SlowStore, cache: KeyCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 50)
    found = await cache.find("one")
    await asyncio.gather(*(cache.find(f"made up {number}") for number in range(200)))
    assert store.most == MAX_READS
    assert len(cache._unknown) == 50
    assert await cache.find("one") == found


async def test_of_too_many_keys_those_used_longest_ago_are_forgotten(
    store: SlowStore, cache: KeyCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 2)
    for digest in ("two", "three"):
        await store.create(api_key(), digest, at_most=9, audit=noted)
    for digest in ("one", "two"):
        await cache.find(digest)
    assert cache.at_hand("one") is not None
    await cache.find("three")
    assert [cache.at_hand(digest) is not None for digest in ("one", "two", "three")] == [True, False, True]


async def test_what_was_written_while_it_was_read_is_read_again(store: SlowStore, cache: KeyCache) -> None:
    reading = asyncio.create_task(cache.find("one"))
    await asyncio.sleep(0.5)
    cache.outdate("acme", "key_1")
    await reading
    assert cache.at_hand("one") is None


async def test_outdated_keys_are_told_of(cache: KeyCache) -> None:
    told: list[object] = []
    cache.changed = lambda *key: told.append(key)
    cache.anything_changed = lambda: told.append("any")
    await cache.find("one")
    cache.outdate("acme", "another")
    assert cache.at_hand("one") is not None
    cache.outdate("acme", "key_1")
    assert cache.at_hand("one") is None
    await cache.find("one")
    cache.outdate_all()
    assert cache.at_hand("one") is None
    assert told == [("acme", "another"), ("acme", "key_1"), "any"]


async def test_a_key_is_found_by_its_id_within_its_organisation(store: SlowStore, cache: KeyCache) -> None:
    found = await cache.find(("acme", "key_1"))
    assert found is not None
    assert (found.key.id, found.until) == ("key_1", None)
    assert cache.at_hand(("acme", "key_1")) is found
    assert await cache.find(("globex", "key_1")) is None
    cache.outdate("acme", "key_1")
    assert cache.at_hand(("acme", "key_1")) is None


async def test_while_the_store_is_away_it_is_asked_seldom_and_keys_serve_for_a_while(
    store: SlowStore, cache: KeyCache
) -> None:
    found = await cache.find("one")
    store.down = True
    await asyncio.sleep(FRESH_S)
    assert await cache.find("one") is found
    loop = asyncio.get_running_loop()
    begun = loop.time()
    assert await cache.find("one") is found
    assert loop.time() == begun
    await asyncio.sleep(TRIAL_INTERVAL_S)
    assert await cache.find("one") is found
    assert loop.time() == begun + TRIAL_INTERVAL_S + 1, "it was asked"
    await asyncio.sleep(USABLE_S)
    with pytest.raises(StoreUnavailableError):
        await cache.find("one")


async def test_a_reader_that_gives_up_leaves_it_to_the_next(store: SlowStore, cache: KeyCache) -> None:
    found = await cache.find("one")
    await asyncio.sleep(FRESH_S)
    reader = asyncio.create_task(cache.find("one"))
    await asyncio.sleep(0.5)
    reader.cancel()
    await asyncio.wait([reader])
    assert await cache.find("one") == found
    assert store.reads == 2
