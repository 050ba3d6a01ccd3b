"""What every PriceStore keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.migrations.sqlite import migrate
from persistence.mongo.client import open_mongo
from persistence.mongo.prices import MongoPrices
from persistence.ports import Conflict, PriceStore, StoreConflictError
from persistence.price_records import Discount, PriceFilter, PriceRule
from persistence.sqlite.database import open_database
from persistence.sqlite.prices import SQLitePrices
from tests.persistence.audit import noted
from tests.persistence.entries import NOON, at, times
from tests.persistence.prices import MemoryPrices, price_rule, rules
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[PriceStore]]

ANY = PriceFilter()
EVER = datetime.min.replace(tzinfo=NOON.tzinfo)
ROUNDS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[PriceStore]:
    migrate(folder / "prices.db")
    async with open_database(folder / "prices.db") as database:
        yield SQLitePrices(database)


@asynccontextmanager
async def open_memory(_: Path) -> AsyncIterator[PriceStore]:
    yield MemoryPrices()


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[PriceStore]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoPrices(mongo)


@pytest.fixture(
    params=[
        pytest.param(open_sqlite, id="sqlite"),
        pytest.param(open_mongodb, id="mongodb"),
        pytest.param(open_memory, id="memory"),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PriceStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as store:
        yield store


@pytest.fixture
def org() -> str:
    """One of its own for each test: a server keeps what earlier tests wrote."""
    return f"org_{uuid4().hex}"


async def added(store: PriceStore, org: str, **changes: object) -> PriceRule:
    rule = price_rule(organisation=org, **changes)
    await store.add(rule, at_most=100, audit=noted)
    return rule


async def listed(store: PriceStore, org: str, **where: object) -> list[PriceRule]:
    return list(await store.page(org, where=PriceFilter(**where), limit=100))


async def test_nothing_is_there_at_first(store: PriceStore, org: str) -> None:
    assert await store.by_id(org, "prc_x") is None
    assert await store.end(org, "prc_x", at(1), now=NOON, audit=noted) is None
    assert list(await store.unended(org, since=EVER)) == []
    assert await listed(store, org) == []


@ROUNDS
@given(rules, times)
async def test_what_goes_in_comes_out(store: PriceStore, made: PriceRule, moment: datetime) -> None:
    rule = replace(made, organisation=f"org_{uuid4().hex}")
    org = rule.organisation
    await store.add(rule, at_most=1, audit=noted)
    assert await store.by_id(org, rule.id) == rule
    assert await listed(store, org) == [rule]
    assert list(await store.unended(org, since=moment)) == [rule] * (rule.until is None or rule.until > moment)
    assert await listed(store, org, active_at=moment) == [rule] * rule.holds(moment)
    assert str((await store.by_id(org, rule.id)).terms) == str(rule.terms)  # to the digit


async def test_an_all_provider_discount(store: PriceStore, org: str) -> None:
    rule = await added(store, org, provider=None, model=None, terms=Discount(Decimal("12.50")))
    assert await store.by_id(org, rule.id) == rule


async def test_what_can_t_be_stored_is_refused(store: PriceStore, org: str) -> None:
    for changes in (
        {"since": NOON + timedelta(microseconds=1)},
        {"until": NOON.replace(tzinfo=None)},
        {"created_at": NOON + timedelta(microseconds=999)},
    ):
        with pytest.raises(ValueError, match=r"milliseconds|aware"):
            await added(store, org, **changes)
    assert await listed(store, org) == []
    rule = await added(store, org)
    with pytest.raises(ValueError, match="milliseconds"):
        await store.end(org, rule.id, NOON + timedelta(microseconds=1), now=NOON, audit=noted)
    with pytest.raises(ValueError, match="limit"):
        await store.page(org, where=ANY, limit=0)


async def test_a_rule_is_ended(store: PriceStore, org: str) -> None:
    rule, other = await added(store, org), await added(store, org)
    assert await store.end(org, rule.id, at(50), now=at(10), audit=noted) == replace(rule, until=at(50))
    assert await store.end(org, rule.id, at(20), now=at(10), audit=noted) == replace(rule, until=at(20))
    assert await store.end(org, rule.id, at(90), now=at(19), audit=noted) == replace(rule, until=at(90))
    assert await store.by_id(org, rule.id) == replace(rule, until=at(90))
    assert await store.by_id(org, other.id) == other


async def test_an_end_that_has_come_stays(store: PriceStore, org: str) -> None:
    rule = await added(store, org, until=at(20))
    for now in (at(20), at(21)):
        with pytest.raises(StoreConflictError, match="ended at 2026-03-01T12:00:00") as caught:
            await store.end(org, rule.id, at(90), now=now, audit=noted)
        assert caught.value.on is Conflict.ENDED
    assert await store.by_id(org, rule.id) == rule


async def test_a_rule_that_never_begins(store: PriceStore, org: str) -> None:
    rule = await added(store, org, since=at(100))
    await store.end(org, rule.id, at(10), now=at(9), audit=noted)
    assert [await listed(store, org, active_at=at(time)) for time in (9, 10, 99, 100)] == [[]] * 4
    assert list(await store.unended(org, since=at(10))) == []


async def test_the_begin_counts_and_the_end_does_not(store: PriceStore, org: str) -> None:
    rule = await added(store, org, since=at(10), until=at(20))
    just, micro = timedelta(milliseconds=1), timedelta(microseconds=1)
    for moment, holds in [
        (rule.since - micro, False),
        (rule.since, True),
        (rule.since + micro, True),
        (rule.until - just, True),
        (rule.until - micro, True),
        (rule.until, False),
        (rule.until + micro, False),
    ]:
        assert rule.holds(moment) is holds
        assert await listed(store, org, active_at=moment) == [rule] * holds
        assert list(await store.unended(org, since=moment)) == [rule] * (moment < rule.until)


async def test_no_more_than_may_be(store: PriceStore, org: str) -> None:
    ended = price_rule(organisation=org, until=at(5))
    await store.add(ended, at_most=2, audit=noted)
    await store.add(price_rule(organisation=org), at_most=2, audit=noted)
    with pytest.raises(StoreConflictError, match="2 rules") as caught:
        await store.add(price_rule(organisation=org, created_at=at(4)), at_most=2, audit=noted)
    assert caught.value.on is Conflict.FULL
    await store.add(price_rule(organisation=org, created_at=at(5)), at_most=2, audit=noted)
    await store.add(price_rule(organisation=f"{org}_2", created_at=at(5)), at_most=1, audit=noted)
    assert len(await listed(store, org)) == 3


async def test_of_many_at_once_as_many_as_may_be(store: PriceStore, org: str) -> None:
    tries = (store.add(price_rule(organisation=org), at_most=3, audit=noted) for _ in range(8))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert results.count(None) == len(await listed(store, org)) == 3


async def test_filters(store: PriceStore, org: str) -> None:
    mini = await added(store, org, model="gpt-4.1-mini", until=at(10))
    whole = await added(store, org, model=None)
    claude = await added(store, org, provider="anthropic", model="claude")
    everywhere = await added(store, org, provider=None, model=None, terms=Discount(Decimal(5)), since=at(10))
    assert await listed(store, org) == [everywhere, claude, whole, mini]
    assert await listed(store, org, provider="openai") == [whole, mini]
    assert await listed(store, org, model="gpt-4.1-mini") == [mini]
    assert await listed(store, org, provider="openai", active_at=at(10)) == [whole]
    assert await listed(store, org, provider="mistral") == []


@ROUNDS
@given(st.integers(1, 4), st.integers(0, 9))
async def test_pages_hold_every_rule_once(store: PriceStore, size: int, count: int) -> None:
    org = f"org_{uuid4().hex}"
    made = [await added(store, org) for _ in range(count)]
    found: list[PriceRule] = []
    while page := await store.page(org, where=ANY, limit=size, before=found[-1].id if found else None):
        assert len(page) <= size
        found.extend(page)
    assert found == made[::-1]


async def test_an_organisation_sees_its_own_alone(store: PriceStore, org: str) -> None:
    rule = await added(store, org)
    other = f"{org}_2"
    assert await store.by_id(other, rule.id) is None
    assert await store.end(other, rule.id, at(1), now=NOON, audit=noted) is None
    assert list(await store.unended(other, since=EVER)) == []
    assert await listed(store, other) == []
    assert await store.by_id(org, rule.id) == rule
