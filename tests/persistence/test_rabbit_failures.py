"""Failures of jobs on a real RabbitMQ: who counts them, and what becomes of the job where nobody can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import aio_pika
import pytest
from uuid_utils import uuid7

from persistence.ports import Delivery
from persistence.queue_records import RETRY_DELAYS_S, Job, QueueDepth
from persistence.rabbit import queue as module
from persistence.rabbit.queue import RabbitQueue, open_rabbit
from tests.servers.queue_depth import until_depth
from tests.servers.rabbit import rabbit_or_skip

from .job_failures import MemoryJobFailures

LAST = len(RETRY_DELAYS_S)


@pytest.fixture
def store() -> MemoryJobFailures:
    return MemoryJobFailures()


@pytest.fixture
async def queue(store: MemoryJobFailures) -> AsyncIterator[RabbitQueue]:
    async with open_rabbit(rabbit_or_skip().url, uuid4().hex, store) as found:
        yield found


def job(failures: int = 0) -> Job:
    return Job(str(uuid7()), "ledger", "{}", datetime.now(UTC), failures)


async def taken(queue: RabbitQueue, count: int) -> AsyncGenerator[Delivery, None]:
    async with asyncio.timeout(20), queue.work(prefetch=10) as batches, aclosing(batches):
        async for batch in batches:
            for delivery in batch:
                yield delivery
            count -= len(batch)
            if count <= 0:
                return


async def fail(queue: RabbitQueue, count: int = 1) -> Sequence[Job]:
    """So many that come; as they came."""
    failed: list[Job] = []
    async with aclosing(taken(queue, count)) as deliveries:
        async for delivery in deliveries:
            await delivery.failed("no")
            failed.append(delivery.job)
    return failed


async def resting(queue: RabbitQueue, seconds: int) -> int:
    async with await aio_pika.connect(rabbit_or_skip().url) as connection:
        channel = await connection.channel()
        name = f"{queue.parking.removesuffix('.parked')}.retry-{seconds}s"
        return (await channel.declare_queue(name, passive=True)).declaration_result.message_count or 0


async def test_the_delay_grows_with_what_is_counted(queue: RabbitQueue, store: MemoryJobFailures) -> None:
    slow = range(2, LAST)  # those that rest for less may come again before they are seen
    jobs = [job() for _ in slow]
    for each, before in zip(jobs, slow, strict=True):
        store.counts[each.id] = before
    await queue.publish(jobs)
    await fail(queue, len(jobs))
    assert [await resting(queue, RETRY_DELAYS_S[before]) for before in slow] == [1] * len(jobs)
    assert [store.counts[each.id] for each in jobs] == [before + 1 for before in slow]


async def test_nothing_is_counted_but_what_is_reported(queue: RabbitQueue, store: MemoryJobFailures) -> None:
    """Not that a worker died, that a job was put back, or done."""
    await queue.publish([job(), job()])
    async with aclosing(taken(queue, 2)) as dying:
        async for _ in dying:
            pass
    async with aclosing(taken(queue, 3)) as deliveries:
        await (await anext(deliveries)).put_back()
        async for delivery in deliveries:
            await delivery.done()
    assert await queue.depth() == QueueDepth(0, 0, 0)
    assert store.counts == {}


async def test_a_job_that_is_there_twice_has_one_count(queue: RabbitQueue) -> None:
    """As where a worker died between its report and the job's end."""
    twice = job(failures=LAST - 1)
    await queue.publish([twice, twice])
    await fail(queue, 2)
    await until_depth(queue, QueueDepth(ready=0, resting=1, parked=1))
    (parked,) = await queue.parked(limit=9)
    assert parked.failures == LAST + 1


async def test_what_is_replayed_begins_anew(queue: RabbitQueue, store: MemoryJobFailures) -> None:
    sent = job(failures=LAST)
    await queue.publish([sent])
    for _ in range(2):
        await fail(queue)
        counted = set(store.counts)
        (parked,) = await queue.parked(limit=9)
        assert (parked.id, parked.failures) == (sent.id, LAST + 1)
        assert await queue.replay([sent.id])
        assert await fail(queue) == [replace(sent, failures=0)]
        assert (await queue.depth()).parked == 0
        (anew,) = store.counts.keys() - counted
        store.counts[anew] = LAST


@pytest.mark.parametrize("trouble", ["down", "stuck"])
async def test_while_the_store_is_away_a_job_is_tried_again_and_not_counted(
    queue: RabbitQueue, store: MemoryJobFailures, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COUNTING_TIMEOUT_S", 0.1)
    setattr(store, trouble, True)
    sent = [job(failures=LAST), job()]
    await queue.publish(sent)
    await fail(queue, 2)
    assert await resting(queue, RETRY_DELAYS_S[-1]) == 1, "it has failed for the last time, but who knows"
    setattr(store, trouble, False)
    assert await fail(queue) == [replace(sent[1], reason="no")], "after the shortest rest"
    assert store.counts == {sent[1].id: 1}


async def test_what_can_never_be_done_is_parked_though_nobody_counts(
    queue: RabbitQueue, store: MemoryJobFailures
) -> None:
    store.down = True
    sent = job(failures=2)
    await queue.publish([sent])
    async with aclosing(taken(queue, 1)) as deliveries:
        async for delivery in deliveries:
            await delivery.refused("never")
    assert await queue.parked(limit=9) == [replace(sent, reason="never")]


async def test_who_has_no_place_to_count_in_takes_no_jobs() -> None:
    async with open_rabbit(rabbit_or_skip().url, uuid4().hex) as queue:
        with pytest.raises(ValueError, match="without a place to count failures"):
            async with queue.work(prefetch=1):
                pass
