"""A worker: what becomes of jobs, and of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from persistence.migrations.sqlite import migrate
from persistence.ports import Delivery, StoreUnavailableError
from persistence.queue_records import Job
from persistence.records import LedgerEntry
from persistence.sqlite.database import open_database
from persistence.sqlite.queue import SQLiteQueue
from resolvers import worker as module
from resolvers.draining import Drain
from resolvers.sinks import LEDGER_JOB, job_of
from resolvers.worker import Handler, working
from tests.persistence.entries import entry
from tests.resolvers.test_ledger import Store, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.01)
    monkeypatch.setattr(module, "REST_AT_MOST_S", 0.02)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[SQLiteQueue]:
    migrate(tmp_path / "jobs.db")
    async with open_database(tmp_path / "jobs.db") as database:
        yield SQLiteQueue(database, lambda: datetime.now(UTC))


def job(number: int, kind: str = "sum") -> Job:
    return Job(f"{number:04}", kind, "{}", datetime.now(UTC))


async def settled(queue: SQLiteQueue, *, parked: int = 0, resting: int = 0) -> None:
    async with asyncio.timeout(5):
        while True:
            depth = await queue.depth()
            if (depth.ready, depth.resting, depth.parked) == (0, resting, parked) and not queue.in_hand:
                return
            await asyncio.sleep(0.005)


async def test_jobs_that_come_together_are_done_together(queue: SQLiteQueue) -> None:
    calls: list[list[str]] = []

    async def handle(jobs: Sequence[Job]) -> None:
        calls.append([each.id for each in jobs])

    await queue.publish([job(1), job(2), job(3)])
    async with working(queue, {"sum": handle}):
        await settled(queue)
    assert calls == [["0001", "0002", "0003"]]


async def test_one_that_fails_does_not_hold_up_the_others(queue: SQLiteQueue) -> None:
    done: list[str] = []

    async def handle(jobs: Sequence[Job]) -> None:
        names = [each.id for each in jobs]
        if "0002" in names:
            raise RuntimeError("a bug")
        if "0003" in names:
            raise ValueError("never")
        done.extend(names)

    await queue.publish([job(1), job(2), job(3), job(4), job(5, "unknown")])
    async with working(queue, {"sum": handle}):
        await settled(queue, parked=2, resting=1)
    assert done == ["0001", "0004"]
    reasons = {each.id: each.reason for each in await queue.parked(limit=9)}
    assert reasons == {"0003": "never", "0005": "no worker of this version does 'unknown'"}


async def test_what_they_need_being_away_is_no_failure_of_theirs(queue: SQLiteQueue) -> None:
    tries: list[int] = []

    async def handle(jobs: Sequence[Job]) -> None:
        tries.extend(each.failures for each in jobs)
        if len(tries) < 4:
            raise StoreUnavailableError("away")

    await queue.publish([job(1)])
    async with working(queue, {"sum": handle}):
        await settled(queue)
    assert tries == [0, 0, 0, 0]


@pytest.mark.parametrize("bad", ["0001", "0003", "0005"])
async def test_one_that_always_finds_its_store_away_holds_up_no_others(queue: SQLiteQueue, bad: str) -> None:
    """It counts as its own failure where others are done."""
    done: list[str] = []

    async def handle(jobs: Sequence[Job]) -> None:
        if bad in [each.id for each in jobs]:
            raise StoreUnavailableError("57014 QueryCanceledError")
        done.extend(each.id for each in jobs)

    await queue.publish([job(number) for number in range(1, 6)])
    async with working(queue, {"sum": handle}):
        await settled(queue, resting=1)
    assert sorted(done) == [f"{number:04}" for number in range(1, 6) if f"{number:04}" != bad]


async def test_at_its_end_what_is_in_hand_is_done(queue: SQLiteQueue) -> None:
    begun, done = asyncio.Event(), []

    async def handle(jobs: Sequence[Job]) -> None:
        begun.set()
        await asyncio.sleep(0.05)
        done.extend(each.id for each in jobs)

    await queue.publish([job(1)])
    async with working(queue, {"sum": handle}):
        await begun.wait()
    assert done == ["0001"]
    assert (await queue.depth()).ready == 0


async def test_what_takes_too_long_at_its_end_comes_again(queue: SQLiteQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.01)
    begun = asyncio.Event()

    async def handle(_: Sequence[Job]) -> None:
        begun.set()
        await asyncio.Event().wait()

    await queue.publish([job(1)])
    async with working(queue, {"sum": handle}):
        await begun.wait()
    assert (await queue.depth()).ready == 1


async def test_a_queue_that_goes_away_is_taken_up_again() -> None:
    entered = []

    class Queue:
        @asynccontextmanager
        async def work(self, *, prefetch: int) -> AsyncIterator[AsyncGenerator[Sequence[Delivery], None]]:
            entered.append(prefetch)
            if len(entered) == 1:
                raise StoreUnavailableError("not yet there")
            yield self.batches()

        async def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
            if len(entered) < 4:
                raise StoreUnavailableError("lost")
            await asyncio.Event().wait()
            yield []

    async with working(Queue(), {}, prefetch=7):  # type: ignore[arg-type]
        await until(lambda: len(entered) == 4)
    assert entered == [7] * 4


class TestDrain:
    def handlers(self, store: Store) -> dict[str, Handler]:
        return {LEDGER_JOB: Drain(store)}  # type: ignore[arg-type]

    async def test_entries_come_into_the_ledger(self, queue: SQLiteQueue) -> None:
        store = Store()
        await queue.publish([job_of([named("a"), named("b")]), job_of([named("c")])])
        async with working(queue, self.handlers(store)):
            await settled(queue)
        assert store.commits == [[named("a"), named("b"), named("c")]]

    async def test_they_wait_for_it(self, queue: SQLiteQueue) -> None:
        store = Store()
        store.failing = True
        await queue.publish([job_of([named("a")])])
        async with working(queue, self.handlers(store)):
            await until(lambda: len(store.tries) >= 3)
            store.failing = False
            await settled(queue)
        assert store.committed == ["a"]

    async def test_what_it_refuses_is_parked_and_the_rest_is_in_it(self, queue: SQLiteQueue) -> None:
        store = Store()
        store.refused = {"b"}
        await queue.publish([job_of([named(name) for name in "abc"]), job_of([named("d")])])
        async with working(queue, self.handlers(store)):
            await settled(queue, parked=1)
        assert sorted(store.committed) == ["a", "c", "d"]
        (parked,) = await queue.parked(limit=9)
        assert parked.reason == "1 of 3 entries can't be stored (b/1): not an entry"

    async def test_a_job_of_something_else_is_parked(self, queue: SQLiteQueue) -> None:
        store = Store()
        await queue.publish([Job("x", LEDGER_JOB, '[{"a": 1}]', datetime.now(UTC)), job_of([named("a")])])
        async with working(queue, self.handlers(store)):
            await settled(queue, parked=1)
        assert store.committed == ["a"]


def named(name: str) -> LedgerEntry:
    return entry(completion_id=name)
