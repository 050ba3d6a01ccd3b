"""Price rules at hand: read once, read anew in time, and outliving a store that is away for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from persistence.price_records import PriceRule
from resolvers import price_cache as module
from resolvers.errors import ServiceUnavailableError
from resolvers.price_book import NO_RULES
from resolvers.price_cache import FRESH_S, TRIAL_INTERVAL_S, USABLE_S, PriceCache
from tests.persistence.entries import NOON
from tests.persistence.prices import MemoryPrices, price_rule

MODEL = "openai", "gpt-4.1", NOON
NOW = datetime(2026, 3, 1, 13, tzinfo=UTC)


class HeldPrices(MemoryPrices):
    """While `hold` is set, a read of a book waits for it after it has read."""

    hold: asyncio.Event | None = None

    def __init__(self, *rules: PriceRule) -> None:
        super().__init__(*rules)
        self.reached = asyncio.Event()

    async def unended(self, organisation: str, *, since: datetime) -> Sequence[PriceRule]:
        found = await super().unended(organisation, since=since)
        if self.hold is not None:
            self.reached.set()
            await self.hold.wait()
        return found


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def store() -> HeldPrices:
    return HeldPrices(price_rule())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(store: HeldPrices, clock: Clock) -> PriceCache:
    return PriceCache(store, clock, lambda: NOW)


async def test_a_book_is_read_once(cache: PriceCache, store: HeldPrices, clock: Clock) -> None:
    assert cache.at_hand("acme") is None
    book = await cache.book("acme")
    assert book.terms(*MODEL) is not None
    clock.time += FRESH_S - 1
    assert cache.at_hand("acme") is book
    assert await cache.book("acme") is book
    assert store.reads == 1


async def test_an_organisation_without_rules_has_the_book_of_none(cache: PriceCache, store: HeldPrices) -> None:
    assert await cache.book("globex") is NO_RULES
    assert cache.at_hand("globex") is NO_RULES
    assert store.reads == 1


async def test_another_process_s_write_is_seen_in_time(cache: PriceCache, store: HeldPrices, clock: Clock) -> None:
    book = await cache.book("acme")
    store.rules.clear()
    clock.time += FRESH_S
    assert cache.at_hand("acme") is None
    assert await cache.book("acme") is not book
    assert cache.at_hand("acme") is NO_RULES


async def test_a_write_of_one_s_own_is_seen_at_once(cache: PriceCache, store: HeldPrices) -> None:
    await cache.book("acme")
    await cache.book("globex")
    store.rules.clear()
    cache.outdate("acme")
    assert cache.at_hand("acme") is None
    assert await cache.book("acme") is NO_RULES
    assert cache.at_hand("globex") is NO_RULES
    assert store.reads == 3


async def test_what_was_read_during_a_write_is_not_kept(cache: PriceCache, store: HeldPrices) -> None:
    store.hold = asyncio.Event()
    reading = asyncio.create_task(cache.book("acme"))
    await store.reached.wait()
    store.rules.clear()
    cache.outdate("acme")
    store.hold.set()
    assert (await reading).terms(*MODEL) is not None
    assert cache.at_hand("acme") is None
    assert await cache.book("acme") is NO_RULES


async def test_who_asks_while_a_write_goes_on_has_what_came_of_it(cache: PriceCache, store: HeldPrices) -> None:
    await cache.book("acme")
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def end_all() -> str:
        begun.set()
        await go_on.wait()
        store.rules.clear()
        return "done"

    writing = asyncio.create_task(cache.write("acme", end_all))
    await begun.wait()
    assert cache.at_hand("acme") is None
    asking = asyncio.create_task(cache.book("acme"))
    writing.cancel()  # its caller is gone; it goes on
    assert await cache.book("globex") is NO_RULES
    go_on.set()
    assert await asking is NO_RULES
    with pytest.raises(asyncio.CancelledError):
        await writing


async def test_after_a_write_that_failed_the_book_is_read_anew_where_it_can_be(
    cache: PriceCache, store: HeldPrices, clock: Clock
) -> None:
    book = await cache.book("acme")

    async def fail() -> None:
        raise ServiceUnavailableError("gone, perhaps after it was written")

    store.down = True
    with pytest.raises(ServiceUnavailableError):
        await cache.write("acme", fail)
    assert await cache.book("acme") is book
    store.rules.clear()
    store.down = False
    clock.time += TRIAL_INTERVAL_S
    assert await cache.book("acme") is NO_RULES


async def test_of_many_one_reads(cache: PriceCache, store: HeldPrices) -> None:
    store.hold = asyncio.Event()
    callers = [asyncio.create_task(cache.book("acme")) for _ in range(20)]
    await store.reached.wait()
    other = asyncio.create_task(cache.book("globex"))
    store.hold.set()
    books = await asyncio.gather(*callers)
    assert {id(book) for book in books} == {id(books[0])}
    assert await other is NO_RULES
    assert store.reads == 2


async def test_a_reader_that_leaves_leaves_its_place_to_the_next(cache: PriceCache, store: HeldPrices) -> None:
    store.hold = asyncio.Event()
    first, second = (asyncio.create_task(cache.book("acme")) for _ in range(2))
    await store.reached.wait()
    first.cancel()
    store.hold.set()
    assert (await second).terms(*MODEL) is not None
    with pytest.raises(asyncio.CancelledError):
        await first
    assert store.reads == 2


async def test_while_one_reads_anew_the_others_have_the_last_book(
    cache: PriceCache, store: HeldPrices, clock: Clock
) -> None:
    book = await cache.book("acme")
    clock.time += FRESH_S
    store.hold = asyncio.Event()
    reading = asyncio.create_task(cache.book("acme"))
    await store.reached.wait()
    assert cache.at_hand("acme") is book
    store.rules.clear()
    store.hold.set()
    assert (await reading).terms(*MODEL) is not None


async def test_the_last_book_serves_while_the_store_is_away(cache: PriceCache, store: HeldPrices, clock: Clock) -> None:
    book = await cache.book("acme")
    since = clock.time
    store.down = True
    clock.time += FRESH_S
    while clock.time < since + USABLE_S:
        reads = store.reads
        assert await cache.book("acme") is book
        assert cache.at_hand("acme") is book
        assert store.reads == reads + 1, "one trial an interval"
        clock.time += TRIAL_INTERVAL_S
    assert cache.at_hand("acme") is None
    with pytest.raises(ServiceUnavailableError) as caught:
        await cache.book("acme")
    assert caught.value.retry_after_ms == TRIAL_INTERVAL_S * 1000


async def test_a_book_is_never_served_for_longer_than_it_is_usable(
    cache: PriceCache, store: HeldPrices, clock: Clock
) -> None:
    book = await cache.book("acme")
    store.down = True
    clock.time += USABLE_S - 1
    assert await cache.book("acme") is book
    clock.time += 1
    assert cache.at_hand("acme") is None
    with pytest.raises(ServiceUnavailableError):
        await cache.book("acme")


async def test_an_organisation_that_was_never_read_is_refused(
    cache: PriceCache, store: HeldPrices, clock: Clock
) -> None:
    store.down = True
    results = await asyncio.gather(*(cache.book("acme") for _ in range(20)), return_exceptions=True)
    assert {type(result) for result in results} == {ServiceUnavailableError}
    assert store.reads == 1
    store.down = False
    clock.time += TRIAL_INTERVAL_S
    assert (await cache.book("acme")).terms(*MODEL) is not None


async def test_an_outdated_book_serves_while_the_store_is_away_and_no_longer(
    cache: PriceCache, store: HeldPrices, clock: Clock
) -> None:
    book = await cache.book("acme")
    store.down = True
    cache.outdate("acme")
    assert cache.at_hand("acme") is None
    assert await cache.book("acme") is book
    store.rules.clear()
    store.down = False
    cache.outdate("acme")
    assert await cache.book("acme") is NO_RULES


async def test_all_are_outdated_and_what_is_being_read_too(cache: PriceCache, store: HeldPrices) -> None:
    await cache.book("globex")
    store.hold = asyncio.Event()
    reading = asyncio.create_task(cache.book("acme"))
    await store.reached.wait()
    cache.outdate_all()
    store.hold.set()
    await reading
    assert [cache.at_hand(each) for each in ("acme", "globex")] == [None, None]


async def test_a_rule_that_ended_while_a_completion_ran_is_in_its_book(cache: PriceCache, store: HeldPrices) -> None:
    recent, old = NOW - timedelta(minutes=5), NOW - timedelta(days=1)
    store.rules = [price_rule(until=recent), price_rule(model="o3", since=old, until=old + timedelta(hours=1))]
    book = await cache.book("acme")
    assert book.terms("openai", "gpt-4.1", recent - timedelta(milliseconds=1)) is not None
    assert book.terms("openai", "o3", old) is None


async def test_it_holds_a_bounded_number_of_organisations(
    cache: PriceCache, store: HeldPrices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 3)
    for organisation in ("a", "b", "c"):
        await cache.book(organisation)
    cache.at_hand("a")
    await cache.book("d")
    assert [cache.at_hand(each) is not None for each in "abcd"] == [True, False, True, True]
