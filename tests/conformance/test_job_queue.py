"""What every JobQueue keeps to: the embedded table, and RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from uuid_utils import uuid7

from persistence.migrations.sqlite import migrate
from persistence.ports import Delivery, JobQueue
from persistence.queue_records import MAX_REASON, RETRY_DELAYS_S, Job, QueueDepth
from persistence.rabbit.queue import open_rabbit
from persistence.sqlite.database import open_database
from persistence.sqlite.job_failures import SQLiteJobFailures
from persistence.sqlite.queue import SQLiteQueue
from tests.servers.queue_depth import until_depth
from tests.servers.rabbit import rabbit_or_skip


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[JobQueue]:
    migrate(folder / "jobs.db")
    async with open_database(folder / "jobs.db") as database:
        yield SQLiteQueue(database, lambda: datetime.now(UTC))


@asynccontextmanager
async def rabbit(folder: Path) -> AsyncIterator[JobQueue]:
    """Without MongoDB, failures are counted in the file."""
    migrate(folder / "failures.db")
    async with (
        open_database(folder / "failures.db") as database,
        open_rabbit(rabbit_or_skip().url, uuid4().hex, SQLiteJobFailures(database)) as queue,
    ):
        yield queue


@pytest.fixture(params=[embedded, rabbit])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobQueue]:
    async with request.param(tmp_path) as found:
        yield found


def job(**changes: object) -> Job:
    made = Job(str(uuid7()), "ledger", '{"tokens": 3}', datetime.now(UTC).replace(microsecond=5000))
    return replace(made, **changes)  # type: ignore[arg-type]


async def take(queue: JobQueue, count: int, *, prefetch: int = 10) -> Sequence[Delivery]:
    """The next so many, which are put back as they are left: a worker that dies."""
    found: list[Delivery] = []
    async with asyncio.timeout(20), queue.work(prefetch=prefetch) as batches, aclosing(batches):
        async for batch in batches:
            found.extend(batch)
            if len(found) >= count:
                break
    return found


async def finish(queue: JobQueue, count: int) -> Sequence[Job]:
    done: list[Job] = []
    async with asyncio.timeout(20), queue.work(prefetch=10) as batches, aclosing(batches):
        async for batch in batches:
            for delivery in batch:
                await delivery.done()
                done.append(delivery.job)
            if len(done) >= count:
                break
    return done


async def test_a_job_comes_as_it_was_published_and_no_more_once_done(queue: JobQueue) -> None:
    jobs = [job(body='{"text": "ä"}'), job(kind="batch")]
    await queue.publish(jobs)
    assert await finish(queue, 2) == jobs
    assert await queue.depth() == QueueDepth(0, 0, 0)


async def test_a_worker_gets_no_more_than_it_can_hold(queue: JobQueue) -> None:
    await queue.publish([job() for _ in range(5)])
    held: list[Delivery] = []
    async with asyncio.timeout(20), queue.work(prefetch=2) as batches, aclosing(batches):
        async for batch in batches:
            held.extend(batch)
            if len(held) == 2:
                break
        await held[0].done()
        async for batch in batches:
            held.extend(batch)
            break
    assert len(held) == 3


async def test_two_workers_get_different_jobs(queue: JobQueue) -> None:
    jobs = [job() for _ in range(20)]
    await queue.publish(jobs)
    seen: list[Job] = []

    async def worker() -> None:
        async with queue.work(prefetch=3) as batches, aclosing(batches):
            async for batch in batches:
                for delivery in batch:
                    seen.append(delivery.job)
                    await delivery.done()
                if len(seen) == len(jobs):
                    return

    async with asyncio.timeout(20):
        workers = [asyncio.create_task(worker()) for _ in range(2)]
        await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        for task in workers:
            task.cancel()
        await asyncio.wait(workers)
    assert sorted(each.id for each in seen) == sorted(each.id for each in jobs)


async def test_what_a_worker_held_as_it_died_comes_again_and_counts_as_no_failure(queue: JobQueue) -> None:
    await queue.publish([job(), job()])
    for _ in range(3):
        assert [each.job.failures for each in await take(queue, 2)] == [0, 0]
    assert len(await finish(queue, 2)) == 2


async def test_what_is_put_back_comes_again_at_once(queue: JobQueue) -> None:
    await queue.publish([job()])
    async with asyncio.timeout(20), queue.work(prefetch=1) as batches, aclosing(batches):
        first = (await anext(batches))[0]
        await first.put_back()
        second = (await anext(batches))[0]
        await second.done()
    assert (second.job.id, second.job.failures) == (first.job.id, 0)


async def test_what_failed_rests_and_comes_again_with_its_reason(queue: JobQueue) -> None:
    await queue.publish([job()])
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout(20), queue.work(prefetch=1) as batches, aclosing(batches):
        await (await anext(batches))[0].failed("no room" + "!" * MAX_REASON)
        await until_depth(queue, QueueDepth(0, 1, 0))
        again = (await anext(batches))[0]
        await again.done()
    assert asyncio.get_running_loop().time() - began >= RETRY_DELAYS_S[0] * 0.9
    assert again.job.failures == 1
    assert again.job.reason is not None
    assert again.job.reason.startswith("no room")
    assert len(again.job.reason) == MAX_REASON


async def test_after_the_last_delay_it_is_parked_and_can_be_replayed(queue: JobQueue) -> None:
    sent = job(failures=len(RETRY_DELAYS_S))
    await queue.publish([sent])
    async with asyncio.timeout(20), queue.work(prefetch=1) as batches, aclosing(batches):
        await (await anext(batches))[0].failed("still no room")
    (parked,) = await queue.parked(limit=10)
    assert (parked.id, parked.failures, parked.reason) == (sent.id, len(RETRY_DELAYS_S) + 1, "still no room")
    assert await queue.replay([sent.id, "never was"]) == {sent.id}
    assert not await queue.replay([sent.id])
    (again,) = await finish(queue, 1)
    assert again == replace(sent, failures=0, reason=None)
    assert await queue.parked(limit=10) == []


async def test_what_can_never_be_done_is_parked_at_once_and_can_be_dropped(queue: JobQueue) -> None:
    jobs = [job(), job(), job()]
    await queue.publish(jobs)
    async with asyncio.timeout(20), queue.work(prefetch=3) as batches, aclosing(batches):
        parked = 0
        async for batch in batches:
            for delivery in batch:
                await delivery.refused("no such thing")
                parked += 1
            if parked == 3:
                break
    assert [each.id for each in await queue.parked(limit=2)] == [each.id for each in jobs[:2]]
    assert await queue.drop([jobs[1].id, "never was"]) == {jobs[1].id}
    assert not await queue.drop([jobs[1].id])
    assert [each.id for each in await queue.parked(limit=10)] == [jobs[0].id, jobs[2].id]
    await until_depth(queue, QueueDepth(0, 0, 2))


async def test_a_job_published_while_a_worker_waits_comes_soon(queue: JobQueue) -> None:
    async with asyncio.timeout(20), queue.work(prefetch=1) as batches, aclosing(batches):
        waiting = asyncio.ensure_future(anext(batches))
        sent = job()
        await queue.publish([sent])
        (delivery,) = await waiting
        await delivery.done()
    assert delivery.job == sent


async def test_the_embedded_queue_outlives_its_process(tmp_path: Path) -> None:
    sent = job()
    async with embedded(tmp_path) as queue:
        await queue.publish([sent])
        await take(queue, 1)
    async with embedded(tmp_path) as queue:
        assert await finish(queue, 1) == [sent]


async def test_the_embedded_queue_keeps_each_delay(tmp_path: Path) -> None:
    migrate(tmp_path / "jobs.db")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    async with open_database(tmp_path / "jobs.db") as database:
        queue = SQLiteQueue(database, lambda: now)
        sent = job()
        await queue.publish([sent])
        for number, seconds in enumerate(RETRY_DELAYS_S, start=1):
            async with queue.work(prefetch=1) as batches, aclosing(batches):
                await (await anext(batches))[0].failed("no")
            now += timedelta(seconds=seconds, milliseconds=-1)
            assert await queue.depth() == QueueDepth(0, 1, 0), number
            now += timedelta(milliseconds=1)
            assert await queue.depth() == QueueDepth(1, 0, 0, sent.created_at), number


async def test_a_job_keeps_its_trace(queue: JobQueue) -> None:
    """Also when it comes again."""
    sent = job(trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    await queue.publish([sent, job()])
    async with queue.work(prefetch=10) as batches, aclosing(batches):
        found: list[Delivery] = []
        while len(found) < 2:
            found += await anext(batches)
        traced = next(each for each in found if each.job.id == sent.id)
        assert {each.job.trace for each in found} == {sent.trace, None}
        await traced.failed("once")
        (again,) = await anext(batches)
        assert (again.job.id, again.job.trace) == (sent.id, sent.trace)


async def test_the_embedded_queue_tells_how_old_its_oldest_job_is(tmp_path: Path) -> None:
    old, young = job(created_at=datetime(2026, 1, 1, tzinfo=UTC)), job()
    async with embedded(tmp_path) as queue:
        assert (await queue.depth()).oldest is None
        await queue.publish([young, old])
        assert await queue.depth() == QueueDepth(2, 0, 0, old.created_at)
        await finish(queue, 2)
        assert (await queue.depth()).oldest is None
