"""What every BatchStore keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from persistence.batch_records import (
    OPEN,
    Batch,
    BatchFilter,
    BatchMode,
    BatchState,
    Counts,
    Item,
    ItemError,
    ItemState,
    Submitter,
    Text,
    VendorRun,
)
from persistence.migrations.sqlite import migrate
from persistence.mongo import batches as mongo_batches
from persistence.mongo.batches import MongoBatches
from persistence.mongo.client import open_mongo
from persistence.ports import BatchStore, Conflict, StoreConflictError
from persistence.reservation_records import Allowance, Kind
from persistence.sqlite import batches as sqlite_batches
from persistence.sqlite.batches import SQLiteBatches
from persistence.sqlite.database import open_database
from tests.persistence.audit import noted
from tests.persistence.batches import SOON, batch, item, move
from tests.persistence.entries import NOON, at
from tests.persistence.memory_batches import MemoryBatches
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[BatchStore]]
WAITING, QUEUED, RUNNING = OPEN
SUCCEEDED, FAILED, CANCELLED = ItemState.SUCCEEDED, ItemState.FAILED, ItemState.CANCELLED


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[BatchStore]:
    migrate(folder / "batches.db")
    async with open_database(folder / "batches.db") as database:
        yield SQLiteBatches(database)


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[BatchStore]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoBatches(mongo)


@asynccontextmanager
async def open_memory(_: Path) -> AsyncIterator[BatchStore]:
    yield MemoryBatches()


@pytest.fixture(
    params=[
        pytest.param(open_sqlite, id="sqlite"),
        pytest.param(open_mongodb, id="mongodb"),
        pytest.param(open_memory, id="memory"),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BatchStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def opened(store: BatchStore, made: Batch | None = None, *, items: int = 3) -> Batch:
    made = made or batch(counts=Counts(waiting=items))
    await store.begin(replace(made, idempotency_key=None))
    await store.add([item(made, index) for index in range(items)])
    return await store.open(made, at_most=9, audit=noted)


async def counts(store: BatchStore, of: Batch) -> Counts:
    """As they are kept, which is as they are."""
    found = await store.by_id(of.organisation, of.id)
    assert found is not None
    every = await store.items(of.organisation, of.id, limit=1000)
    states = [each.state.value for each in every]
    assert found.counts == Counts(**{state: states.count(state) for state in states})
    assert found.cost == sum((each.cost for each in every if each.cost is not None), Decimal(0))
    assert found.unpriced == sum(each.unpriced for each in every)
    return found.counts


async def test_a_batch_and_its_items_are_found_as_they_were(store: BatchStore) -> None:
    made = batch(
        concurrency=7,
        deadline=SOON,
        webhook="whk_1",
        idempotency_key="k",
        mode=BatchMode.PROVIDER,
        submitter=Submitter("é", None, None, ("greet",)),
        cost=Decimal("0.000000000001"),
        run=2,
        ended_before=7,
        call_digest="d2",
    )
    await opened(store, made)
    assert await store.by_id("acme", made.id) == made
    assert await store.by_key("acme", "k") == made
    assert await store.page("acme", where=BatchFilter(), limit=5) == [made]
    every = [item(made, index) for index in range(3)]
    assert await store.items("acme", made.id, limit=9) == every
    assert await store.items("acme", made.id, limit=1, after=0) == every[1:2]
    assert await store.items("acme", made.id, states=(FAILED,), limit=9) == []
    due = await store.due("acme", made.id, states=OPEN, now=NOON, limit=2)
    assert due == [replace(each, input=Text()) for each in every[:2]]
    assert await store.due("acme", made.id, states=OPEN, now=at(-1), limit=2) == []


async def test_another_organisation_has_none_of_it(store: BatchStore) -> None:
    made = await opened(store, batch(idempotency_key="k"))
    assert await store.by_id("globex", made.id) is None
    assert await store.by_key("globex", "k") is None
    assert await store.page("globex", where=BatchFilter(), limit=5) == []
    assert await store.items("globex", made.id, limit=5) == []
    assert await store.due("globex", made.id, states=OPEN, now=SOON, limit=5) == []
    foreign = replace(move(made, 0, WAITING, RUNNING, claims=True), organisation="globex")
    assert await store.move([foreign]) == [None]
    values = {"state": BatchState.CANCELLING}
    assert await store.change("globex", made.id, expects=tuple(BatchState), values=values, audit=noted) is None
    await store.discard("globex", made.id)
    assert await counts(store, made) == Counts(waiting=3)


async def test_what_is_not_opened_is_not_there_until_it_is(store: BatchStore) -> None:
    made = batch(counts=Counts(waiting=1))
    await store.begin(made)
    await store.add([item(made, 0)])
    assert await store.by_id("acme", made.id) is None
    assert await store.page("acme", where=BatchFilter(), limit=5) == []
    assert await store.active(limit=5) == []
    assert await store.unopened(before=NOON, limit=5) == []
    assert await store.unopened(before=at(1), limit=5) == [("acme", made.id)]
    await store.discard("acme", made.id)
    assert await store.unopened(before=at(1), limit=5) == []
    assert await store.items("acme", made.id, limit=5) == []
    there = await opened(store)
    await store.discard("acme", there.id)
    assert await counts(store, there) == Counts(waiting=3)


async def test_what_ended_long_ago_is_closed_and_then_discarded(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (sqlite_batches, mongo_batches):
        monkeypatch.setattr(place, "DISCARDED_AT_ONCE", 2)
    old, young, running = await opened(store, batch(idempotency_key="k"), items=5), await opened(store), batch()
    await opened(store, running)
    for each, at_ in ((old, NOON), (young, SOON)):
        values = {"state": BatchState.COMPLETED, "ended_at": at_}
        await store.change("acme", each.id, expects=OPEN_STATES, values=values)
    run = VendorRun("acme", old.id, 1, "openai", "gpt-4o", "1", NOON)
    await store.add_vendor_run(run)
    assert await store.ended(before=NOON, limit=5) == []
    assert await store.ended(before=at(1), limit=5) == [("acme", old.id)]
    assert await store.ended(before=SOON + timedelta(seconds=1), limit=1) == [("acme", old.id)]
    assert [await store.close("acme", each.id, before=SOON) for each in (young, running)] == [False, False]
    assert not await store.close("globex", old.id, before=SOON)
    assert await store.close("acme", old.id, before=SOON)
    assert not await store.close("acme", old.id, before=SOON)
    assert (await store.by_id("acme", old.id), await store.by_key("acme", "k")) == (None, None)
    assert await store.ended(before=SOON, limit=5) == []
    values = {"state": BatchState.RETRYING, "ended_at": None}
    assert await store.change("acme", old.id, expects=tuple(BatchState), values=values) is None
    assert await store.unopened(before=at(1), limit=5) == [("acme", old.id)]
    await store.discard("acme", old.id)
    assert await store.unopened(before=at(1), limit=5) == []
    assert (await store.items("acme", old.id, limit=9), await store.vendor_runs("acme", old.id)) == ([], [])
    assert await counts(store, young) == await counts(store, running) == Counts(waiting=3)


async def test_a_key_opens_one_batch_whoever_comes_at_once(store: BatchStore) -> None:
    asked = [batch(idempotency_key="k", counts=Counts(waiting=3)) for _ in range(5)]
    found = await asyncio.gather(*(opened(store, each) for each in asked))
    assert len({each.id for each in found}) == 1
    assert [each.id for each in await store.page("acme", where=BatchFilter(), limit=9)] == [found[0].id]
    other = await opened(store, batch(organisation="globex", idempotency_key="k"))
    assert other.organisation == "globex"


async def test_there_are_no_more_than_so_many_unended(store: BatchStore) -> None:
    first = await opened(store)
    full = batch()
    await store.begin(full)
    with pytest.raises(StoreConflictError) as caught:
        await store.open(full, at_most=1, audit=noted)
    assert caught.value.on is Conflict.FULL
    values = {"state": BatchState.COMPLETED, "ended_at": SOON, "result_file": "f"}
    ended = await store.change("acme", first.id, expects=(BatchState.RUNNING,), values=values)
    assert ended == replace(first, **values)
    assert await store.open(full, at_most=1, audit=noted) == full
    assert await store.change("acme", first.id, expects=(BatchState.RUNNING,), values=values, audit=noted) is None


async def test_lists_go_on_where_they_left_off(store: BatchStore) -> None:
    made = [await opened(store) for _ in range(3)]
    other = await opened(store, batch(organisation="globex"))
    newest = await store.page("acme", where=BatchFilter(), limit=2)
    assert [each.id for each in newest] == [made[2].id, made[1].id]
    assert [each.id for each in await store.page("acme", where=BatchFilter(), limit=2, before=made[1].id)] == [
        made[0].id
    ]
    states = (BatchState.CANCELLED, BatchState.COMPLETED)
    assert await store.page("acme", where=BatchFilter(states), limit=2) == []
    await store.change("acme", made[0].id, expects=OPEN_STATES, values={"ended_at": SOON, "state": states[0]})
    assert [each.id for each in await store.page("acme", where=BatchFilter(states), limit=2)] == [made[0].id]
    active = await store.active(limit=2)
    assert [each.id for each in active] == [made[1].id, made[2].id]
    assert [each.id for each in await store.active(limit=2, after=("acme", made[2].id))] == [other.id]


OPEN_STATES = (BatchState.RUNNING,)


async def test_one_of_many_claims_an_item_and_an_older_fence_changes_nothing(store: BatchStore) -> None:
    made = await opened(store)
    claim = move(made, 1, WAITING, RUNNING, claims=True, due=SOON, completion_id="cmp_1")
    answers = await asyncio.gather(*(store.move([claim]) for _ in range(8)))
    [claimed] = [answer[0] for answer in answers if answer[0] is not None]
    assert claimed == item(made, 1, state=RUNNING, fence=1, due=SOON, completion_id="cmp_1")
    assert await counts(store, made) == Counts(waiting=2, running=1)
    again = move(made, 1, RUNNING, WAITING, fence=1, due=NOON, lost=1)
    await store.move([again])
    [second] = await store.move([claim])
    assert second is not None
    assert (second.fence, second.lost) == (2, 1)
    ends = [move(made, 1, RUNNING, SUCCEEDED, fence=fence, result=Text(f"r{fence}"), ended_at=SOON) for fence in (1, 2)]
    assert (await store.move([ends[0]])) == [None]
    [ended] = await store.move([ends[1]])
    assert ended is not None
    assert await store.move([ends[1]]) == [None]
    [found] = await store.items("acme", made.id, states=(SUCCEEDED,), limit=5)
    assert (found.result, found.due, found.ended_at, found.input) == (Text("r2"), None, SOON, Text('{"n":1}'))
    assert await counts(store, made) == Counts(waiting=2, succeeded=1)


async def test_who_was_revoked_can_no_longer_end_it(store: BatchStore) -> None:
    made = await opened(store)
    await store.move([move(made, 0, WAITING, RUNNING, claims=True, due=SOON)])
    await store.move([move(made, 0, RUNNING, CANCELLED, revokes=True, ended_at=SOON)])
    assert await store.move([move(made, 0, RUNNING, SUCCEEDED, fence=1, result=Text("late"))]) == [None]
    assert await counts(store, made) == Counts(waiting=2, cancelled=1)


async def test_costs_add_up_and_a_retry_forgets_the_error_alone(store: BatchStore) -> None:
    made = await opened(store)
    for index, cost in enumerate(("0.1", "1E-12")):
        await store.move([move(made, index, WAITING, RUNNING, claims=True, due=SOON)])
        error = ItemError("PROVIDER_TIMEOUT", "é")
        end = move(made, index, RUNNING, FAILED, error=error, failures=1, cost=Decimal(cost), unpriced=True)
        await store.move([replace(end, ended_at=SOON)])
    assert await counts(store, made) == Counts(waiting=1, failed=2)
    [retried] = await store.move([move(made, 0, FAILED, WAITING, resets=True, due=NOON)])
    assert retried is not None
    assert (retried.error, retried.failures, retried.cost, retried.ended_at) == (None, 0, Decimal("0.1"), None)
    assert await counts(store, made) == Counts(waiting=2, failed=1)
    found = await store.by_id("acme", made.id)
    assert found is not None
    assert (found.cost, found.unpriced) == (Decimal("0.100000000001"), 2)


async def test_many_moves_at_once_leave_exact_counts(store: BatchStore) -> None:
    made = await opened(store, items=40)

    async def work(start: int) -> None:
        for index in range(start, 40, 4):
            claims = [move(made, index, WAITING, RUNNING, claims=True, due=SOON)]
            [claimed] = await store.move(claims)
            assert claimed is not None
            await store.move([move(made, index, RUNNING, SUCCEEDED, fence=1, cost=Decimal("0.01"))])

    await asyncio.gather(*map(work, range(4)))
    assert await counts(store, made) == Counts(succeeded=40)
    found = await store.by_id("acme", made.id)
    assert found is not None
    assert found.cost == Decimal("0.40")


async def test_moves_of_several_batches_come_together(store: BatchStore) -> None:
    first, second = await opened(store), await opened(store, batch(organisation="globex"))
    both = [move(each, 0, WAITING, QUEUED, due=SOON) for each in (first, second)]
    missing = move(first, 99, WAITING, QUEUED)
    answers: list[Item | None] = [*await store.move([*both, missing])]
    assert [None if each is None else each.organisation for each in answers] == ["acme", "globex", None]
    assert await counts(store, first) == await counts(store, second) == Counts(waiting=2, queued=1)
    assert await store.move([]) == []


async def test_a_batch_that_changes_keeps_what_its_items_do_meanwhile(store: BatchStore) -> None:
    made = await opened(store, items=20)

    async def change() -> None:
        for number in range(10):
            await store.change("acme", made.id, expects=OPEN_STATES, values={"priority": number}, audit=noted)

    moves = (store.move([move(made, index, WAITING, QUEUED, due=SOON)]) for index in range(20))
    await asyncio.gather(change(), *moves)
    assert await counts(store, made) == Counts(queued=20)
    found = await store.by_id("acme", made.id)
    assert found is not None
    assert found.priority == 9


async def test_one_leads_until_his_time_is_over(store: BatchStore) -> None:
    later = NOON + timedelta(seconds=10)
    answers = await asyncio.gather(*(store.lead("d", str(n), now=NOON, until=later) for n in range(5)))
    assert sum(answers) == 1
    leader = str(answers.index(True))
    assert await store.lead("d", leader, now=at(1), until=later)
    assert not await store.lead("d", "x", now=at(9999), until=SOON)
    assert await store.lead("other", "x", now=NOON, until=SOON)
    await store.resign("d", "x")
    assert not await store.lead("d", "x", now=at(9999), until=SOON)
    assert await store.lead("d", "x", now=later, until=SOON)
    await store.resign("d", "x")
    assert await store.lead("d", leader, now=later, until=SOON)


async def test_the_vendors_batches_are_found_by_number(store: BatchStore) -> None:
    made = await opened(store)
    holds = Allowance("usd_per_day:2026-01-01:organisation:", Kind.BUDGET, 2**53, 2**53, 1000.5)
    run = VendorRun("acme", made.id, 1, "openai", "gpt-4o", "1", NOON, reserved=(holds, holds))
    assert await store.add_vendor_run(replace(run, number=2))
    assert await store.add_vendor_run(run)
    assert not await store.add_vendor_run(replace(run, key_id="2")), "another's has that number"
    sent = replace(run, vendor_id="batch_1", polls=3, poll_at=SOON, ended=True)
    await store.save_vendor_run(sent)
    await store.save_vendor_run(run)  # by who leads no more
    assert await store.vendor_runs("acme", made.id) == [sent, replace(run, number=2)]
    assert await store.vendor_runs("globex", made.id) == []
    assert await store.unended_vendor_runs("acme") == [replace(run, number=2)]
    assert await store.unended_vendor_runs("globex") == []
    await store.move([move(made, 2, WAITING, RUNNING, claims=True, vendor_run=1, due=SOON)])
    assert [each.index for each in await store.of_vendor_run("acme", made.id, 1)] == [2]
    assert await store.of_vendor_run("acme", made.id, 2) == []


async def test_a_page_has_at_least_one(store: BatchStore) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await store.page("acme", where=BatchFilter(), limit=0)
    with pytest.raises(ValueError, match="at least 1"):
        await store.items("acme", "bat_1", limit=0)
