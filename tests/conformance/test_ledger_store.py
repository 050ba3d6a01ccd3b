"""What every LedgerStore keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persistence.migrations.sqlite import migrate
from persistence.ports import LedgerStore
from persistence.records import CompletionFilter, Cursor, Outcome
from persistence.timescale.ledger import open_timescale_ledger
from persistence.usage_records import UsageSums
from tests.persistence.embedded import open_sqlite_ledger
from tests.persistence.entries import NOON, at, entries, entry, labels, texts
from tests.persistence.usage_fold import usage_totals
from tests.servers.community import community_database
from tests.servers.postgres import Kind, own_database, shared_database

Opener = Callable[[Path], AbstractAsyncContextManager[LedgerStore]]
Database = Callable[[Kind], AbstractAsyncContextManager[str]]

ANY = CompletionFilter()
DAY = {"since": NOON - timedelta(hours=12), "until": NOON + timedelta(hours=12)}
ROUNDS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[LedgerStore]:
    migrate(folder / "ledger.db")
    async with open_sqlite_ledger(folder / "ledger.db") as ledger:
        yield ledger


def on(database: Database, kind: Kind) -> Opener:
    @asynccontextmanager
    async def opener(_: Path) -> AsyncIterator[LedgerStore]:
        async with database(kind) as url, open_timescale_ledger(url) as ledger:
            yield ledger

    return opener


@asynccontextmanager
async def open_community(_: Path) -> AsyncIterator[LedgerStore]:
    async with community_database() as url, open_timescale_ledger(url) as ledger:
        yield ledger


def stores(database: Database) -> list[Any]:
    return [
        pytest.param(open_sqlite, id="sqlite"),
        *(pytest.param(on(database, kind), id=str(kind)) for kind in Kind),
        pytest.param(open_community, id="community"),
    ]


STORES = stores(own_database)  # empty ones; to make one takes a while


@pytest.fixture(params=stores(shared_database))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LedgerStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as store:
        yield store


@pytest.fixture
def org() -> str:
    """One of its own for each test: a server keeps what earlier tests wrote."""
    return f"org_{uuid4().hex}"


async def every_page(store: LedgerStore, org: str, size: int, where: CompletionFilter = ANY) -> list[str]:
    """All completion ids, page by page."""
    found: list[str] = []
    after = None
    for _ in count():
        page = await store.completions(org, where=where, limit=size, after=after)
        assert len(page) <= size
        if not page:
            break
        found.extend(group[0].completion_id for group in page)
        after = Cursor(page[-1][0].time, page[-1][0].completion_id)
    return found


async def test_nothing_is_there_at_first(store: LedgerStore, org: str) -> None:
    await store.append([])
    assert list(await store.completion(org, "cmp_x")) == []
    assert list(await store.completion_by_key(org, "k")) == []
    assert list(await store.completions(org, where=ANY, limit=10)) == []
    assert await usage_totals(store, org, **DAY) == UsageSums()


@ROUNDS
@given(st.lists(entries, max_size=3))
async def test_what_goes_in_comes_out(store: LedgerStore, written: list) -> None:
    await store.append(written)
    for item in written:
        assert list(await store.completion(item.organisation, item.completion_id)) == [item]


async def test_time_comes_back_in_utc(store: LedgerStore, org: str) -> None:
    item = entry(organisation=org)
    await store.append([item])
    [found] = await store.completion(org, item.completion_id)
    assert found.time.utcoffset() == timedelta(0)


async def test_booking_twice_is_booking_once(store: LedgerStore, org: str) -> None:
    first = entry(organisation=org, output_tokens=1)
    again = replace(first, output_tokens=999, outcome=Outcome.FAILED)
    await store.append([first, again])
    await store.append([again, entry(organisation=org, attempt=2, completion_id=first.completion_id)])
    found = await store.completion(org, first.completion_id)
    assert [(item.attempt, item.output_tokens) for item in found] == [(1, 1), (2, 80)]
    assert (await usage_totals(store, org, **DAY)).output_tokens == 81


async def test_entries_of_one_completion_come_by_attempt(store: LedgerStore, org: str) -> None:
    for attempt in (3, 1, 2):
        await store.append([entry(organisation=org, completion_id=f"cmp_{org}", attempt=attempt)])
    assert [item.attempt for item in await store.completion(org, f"cmp_{org}")] == [1, 2, 3]
    [group] = await store.completions(org, where=ANY, limit=10)
    assert [item.attempt for item in group] == [1, 2, 3]


async def test_an_organisation_sees_its_own(store: LedgerStore, org: str) -> None:
    ours = entry(organisation=org, idempotency_key="k")
    theirs = entry(organisation=f"{org}_2", idempotency_key="k", time=at(1))
    await store.append([ours, theirs])
    for one, other in ((ours, theirs), (theirs, ours)):
        assert list(await store.completion(one.organisation, other.completion_id)) == []
        assert list(await store.completion_by_key(one.organisation, "k")) == [one]
        assert [list(group) for group in await store.completions(one.organisation, where=ANY, limit=9)] == [[one]]
        assert (await usage_totals(store, one.organisation, **DAY)).attempts == 1


async def test_an_id_says_nothing_of_another_organisations_entries(store: LedgerStore, org: str) -> None:
    ours = entry(organisation=org, idempotency_key="k", outcome=Outcome.SUCCEEDED)
    theirs = replace(ours, organisation=f"{org}_2", attempt=ours.attempt + 1, outcome=Outcome.FAILED)
    await store.append([ours, theirs])
    for one, other in ((ours, theirs), (theirs, ours)):
        assert list(await store.completion(one.organisation, one.completion_id)) == [one]
        assert list(await store.completion_by_key(one.organisation, "k")) == [one]
        for where, found in (
            (ANY, [[one]]),
            (CompletionFilter(outcome=one.outcome), [[one]]),
            (CompletionFilter(outcome=other.outcome), []),
        ):
            assert [list(group) for group in await store.completions(one.organisation, where=where, limit=9)] == found


async def test_a_key_used_again_finds_the_newest_completion(store: LedgerStore, org: str) -> None:
    older = entry(organisation=org, idempotency_key="k")
    newer = [
        entry(organisation=org, idempotency_key="k", time=at(1), completion_id="cmp_2" + org, attempt=n) for n in (1, 2)
    ]
    await store.append([*newer, older, entry(organisation=org, time=at(9))])
    assert list(await store.completion_by_key(org, "k")) == newer


async def test_sums_are_exact(store: LedgerStore, org: str) -> None:
    costs = [Decimal("0.1")] * 10 + [Decimal("1E-28"), Decimal("12345678901234567890.123456789"), Decimal("-1E-10")]
    await store.append([entry(organisation=org, cost=cost) for cost in costs])
    totals = await usage_totals(store, org, **DAY)
    assert totals.cost == Decimal("12345678901234567891.1234567889000000000000000001")


@ROUNDS
@given(st.lists(st.decimals(0, 10**9, places=25), max_size=8))
async def test_any_sum_is_exact(store: LedgerStore, costs: list[Decimal]) -> None:
    org = uuid4().hex
    await store.append([entry(organisation=org, cost=cost) for cost in costs])
    assert Fraction((await usage_totals(store, org, **DAY)).cost) == sum(map(Fraction, costs))


async def test_totals_count_every_kind(store: LedgerStore, org: str) -> None:
    parts = {"cached_input_tokens": 7, "cache_write_tokens": 5, "reasoning_tokens": 3}
    await store.append(
        [
            entry(organisation=org, completion_id=f"cmp_{org}", outcome=Outcome.FAILED, cost=None, estimated=True),
            entry(organisation=org, completion_id=f"cmp_{org}", attempt=2, cost=Decimal(2), **parts),
            entry(organisation=org, outcome=Outcome.CANCELLED, cost=Decimal("0.5"), **parts),
        ]
    )
    assert await usage_totals(store, org, **DAY) == UsageSums(
        completions=2,
        attempts=3,
        failed_attempts=1,
        input_tokens=3600,
        output_tokens=240,
        cached_input_tokens=14,
        cache_write_tokens=10,
        reasoning_tokens=6,
        cost=Decimal("2.5"),
        unpriced=1,
        estimated=1,
        written_tokens=240,
        latency={0: 3},
    )


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (at(0), at(3), 3),
        (at(1), at(2), 1),
        (at(1) - timedelta(microseconds=1), at(1) + timedelta(microseconds=1), 1),
        (at(1) + timedelta(microseconds=1), at(2), 0),
        (at(2), at(2), 0),
    ],
)
async def test_since_is_inclusive_and_until_exclusive(
    store: LedgerStore, org: str, since: datetime, until: datetime, expected: int
) -> None:
    await store.append([entry(organisation=org, time=at(n)) for n in range(3)])
    assert (await usage_totals(store, org, since=since, until=until)).attempts == expected
    where = CompletionFilter(since=since, until=until)
    assert len(await store.completions(org, where=where, limit=10)) == expected


@pytest.mark.parametrize("size", [1, 4, 25, 100])
async def test_pages_hold_each_completion_once_newest_first(store: LedgerStore, org: str, size: int) -> None:
    written = [
        entry(organisation=org, time=at(n // 5), completion_id=f"cmp_{n * 7 % 25:02}_{org}", attempt=attempt)
        for n in range(25)
        for attempt in range(1, 1 + n % 3 + 1)
    ]
    await store.append(written)
    expected = [key[1] for key in sorted({(item.time, item.completion_id) for item in written}, reverse=True)]
    assert await every_page(store, org, size) == expected


async def test_what_is_new_does_not_shift_the_pages(store: LedgerStore, org: str) -> None:
    await store.append([entry(organisation=org, time=at(n)) for n in range(6)])
    before = await every_page(store, org, 10)
    first = await store.completions(org, where=ANY, limit=2)
    await store.append([entry(organisation=org, time=at(n)) for n in range(10, 14)])
    cursor = Cursor(first[-1][0].time, first[-1][0].completion_id)
    rest = await store.completions(org, where=ANY, limit=10, after=cursor)
    assert [group[0].completion_id for group in (*first, *rest)] == before


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (CompletionFilter(provider="groq"), {"fallback"}),
        (CompletionFilter(provider="openai"), {"fallback", "plain"}),
        (CompletionFilter(model="llama"), {"fallback"}),
        (CompletionFilter(provider="openai", model="llama"), set()),
        (CompletionFilter(outcome=Outcome.SUCCEEDED), {"fallback", "plain"}),
        (CompletionFilter(outcome=Outcome.FAILED), set()),
        (CompletionFilter(outcome=Outcome.SUCCEEDED, provider="openai", since=at(10)), {"plain"}),
        (CompletionFilter(end_user="ü"), {"plain"}),
        (CompletionFilter(end_user="u"), set()),
        (CompletionFilter(label=("team", "søk")), {"plain"}),
        (CompletionFilter(label=("team", "sø")), set()),
        (CompletionFilter(label=("søk", "team")), set()),
        (CompletionFilter(provider="x' OR '1'='1"), set()),
    ],
)
async def test_filters(store: LedgerStore, org: str, where: CompletionFilter, found: set[str]) -> None:
    fallback = f"cmp_fallback_{org}"
    await store.append(
        [
            entry(organisation=org, completion_id=fallback, outcome=Outcome.FAILED),
            entry(organisation=org, completion_id=fallback, attempt=2, provider="groq", model="llama"),
            entry(
                organisation=org,
                completion_id=f"cmp_plain_{org}",
                time=at(10),
                end_user="ü",
                labels={"a": "b", "team": "søk"},
            ),
        ]
    )
    groups = await store.completions(org, where=where, limit=10)
    assert {group[0].completion_id.split("_")[1] for group in groups} == found
    assert all(len(group) == (2 if group[0].completion_id == fallback else 1) for group in groups)


@ROUNDS
@given(kept=labels, other=labels, pair=st.tuples(texts, texts), data=st.data())
async def test_a_label_matches_whole_pairs_only(
    store: LedgerStore, kept: dict[str, str], other: dict[str, str], pair: tuple[str, str], data: st.DataObject
) -> None:
    org = uuid4().hex
    asked = data.draw(st.sampled_from([pair, *kept.items(), *other.items()]))
    written = [entry(organisation=org, labels=kept), entry(organisation=org, labels=other)]
    await store.append(written)
    groups = await store.completions(org, where=CompletionFilter(label=asked), limit=10)
    expected = {item.completion_id for item in written if item.labels.get(asked[0]) == asked[1]}
    assert {group[0].completion_id for group in groups} == expected


@pytest.mark.parametrize("labels", [{"a,": ":", "b": "c"}, {'x,"k': "v"}, {"k": 'v"\n  "z": "w'}, {"n": "a\x00b"}])
@pytest.mark.parametrize("asked", [(":", ","), ("k", "v"), ("z", "w"), ("n", "a"), ("n", "a\x00b")])
async def test_a_label_that_imitates_another_does_not_match(
    store: LedgerStore, org: str, labels: dict[str, str], asked: tuple[str, str]
) -> None:
    await store.append([entry(organisation=org, labels=labels)])
    groups = await store.completions(org, where=CompletionFilter(label=asked), limit=10)
    assert bool(groups) is (labels.get(asked[0]) == asked[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"time": NOON.replace(tzinfo=None)},
        {"time": NOON + timedelta(microseconds=1)},
        {"cost": Decimal("NaN")},
        {"cost": Decimal("1E+1000000")},
        {"input_tokens": 2**63},
        {"input_tokens": None},
        {"model": "\ud800"},
        {"labels": {"a": "\ud800"}},
    ],
    ids=str,
)
async def test_an_entry_that_cannot_be_held_is_refused_with_its_batch(
    store: LedgerStore, org: str, wrong: dict
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        await store.append([entry(organisation=org), entry(organisation=org, **wrong)])
    assert (await usage_totals(store, org, **DAY)).attempts == 0
    await store.append([entry(organisation=org)])
    assert (await usage_totals(store, org, **DAY)).attempts == 1


async def test_a_page_holds_at_least_one(store: LedgerStore, org: str) -> None:
    with pytest.raises(ValueError, match="limit"):
        await store.completions(org, where=ANY, limit=0)


async def test_naive_times_are_refused(store: LedgerStore, org: str) -> None:
    with pytest.raises(ValueError, match="aware"):
        await usage_totals(store, org, since=NOON.replace(tzinfo=None), until=NOON)


async def test_readers_and_writers_at_once(store: LedgerStore, org: str) -> None:
    """Every batch is seen whole or not at all."""

    async def write(writer: int) -> None:
        for n in range(1, 11):
            await store.append([entry(organisation=org, time=at(writer), attempt=n) for _ in range(3)])

    async def read() -> None:
        for _ in range(20):
            assert (await usage_totals(store, org, **DAY)).attempts % 3 == 0

    await asyncio.gather(*(write(n) for n in range(4)), *(read() for _ in range(4)))
    assert (await usage_totals(store, org, **DAY)).attempts == 120
