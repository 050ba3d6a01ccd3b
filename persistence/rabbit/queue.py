"""Jobs on quorum queues.

Three sorts of queues: the one that workers take from, one for each delay of a failed job, whose messages the broker
moves back when their time is over, and the one of parked jobs. Failures are counted where documents are kept, by
whoever reports them, and not by the broker: its own count grows when a worker dies, which is not the job's fault. A
message carries what was counted when it was sent.

Sources: https://www.rabbitmq.com/docs/quorum-queues (delivery limit, at-least-once dead lettering),
https://www.rabbitmq.com/docs/ttl.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog
from aio_pika import Message
from aio_pika.abc import AbstractIncomingMessage
from yarl import URL

from ..authorities import check_authorities
from ..ports import Delivery, JobFailures, StoreUnavailableError
from ..queue_records import MAX_REASON, RETRY_DELAYS_S, Job, QueueDepth
from .address import address
from .link import BLOCKED, Link, RabbitRefusedError, asked, open_link
from .messages import counted_as, job_of, message_of

COUNTING_TIMEOUT_S = 2.0
"""Others wait while a failure is counted; one that is not costs the job one more try."""
_NO_LIMIT = 2**31 - 1  # of deliveries: where nothing is said RabbitMQ 4 has 20
_QUORUM: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": _NO_LIMIT}

log = structlog.get_logger("queue")


class RabbitQueue:
    """Implements `ports.JobQueue`. Opened by `open_rabbit`."""

    def __init__(self, url: URL, name: str, failures: JobFailures | None, ca_file: Path | None) -> None:
        self._url = url
        self._name = name
        self._failures = failures
        self._ca_file = ca_file
        self._opening = asyncio.Lock()
        self._publisher: Link | None = None

    async def publish(self, jobs: Sequence[Job]) -> None:
        await self.send(self._name, [message_of(job) for job in jobs])

    @asynccontextmanager
    async def work(self, *, prefetch: int) -> AsyncIterator[AsyncGenerator[Sequence[Delivery], None]]:
        if self._failures is None:
            raise ValueError("it was opened without a place to count failures in")
        counting = _Counting(self._failures, (*self._resting(),), self.parking)

        def delivery(message: AbstractIncomingMessage) -> Delivery:
            return _RabbitDelivery(self, counting, message)

        async with self._link(confirms=False) as link:
            arriving = _Arriving(delivery, prefetch)
            await link.consume(self._name, arriving.take, arriving.lose, prefetch=prefetch)
            yield arriving.batches()

    async def parked(self, *, limit: int) -> Sequence[Job]:
        """While they are looked at, another look at the same moment does not find them."""
        found: list[Job] = []
        async with self._link(confirms=False) as link:
            async for message in link.taken(self.parking):
                found.append(job_of(message))
                if len(found) >= limit:
                    break
            await link.give_back(self.parking, len(found))
        return sorted(found, key=lambda job: job.id)

    async def replay(self, job_ids: Collection[str]) -> Set[str]:
        """Their failures are counted by other names from then on: what was counted before needs no undoing."""

        async def again(job: Job) -> None:
            await self.send(self._name, [message_of(replace(job, failures=0, reason=None), uuid4().hex)])

        return await self._unpark(job_ids, again)

    async def drop(self, job_ids: Collection[str]) -> Set[str]:
        async def forget(_: Job) -> None:
            return

        return await self._unpark(job_ids, forget)

    async def depth(self) -> QueueDepth:
        async with self._link(confirms=False) as link:
            counts = [await link.count(name) for name in (self._name, self.parking, *self._resting())]
        return QueueDepth(ready=counts[0], resting=sum(counts[2:]), parked=counts[1])

    async def look(self) -> str | None:
        """What keeps it from its work, in a line; None where nothing does."""
        try:
            link = await self._publishing()
        except StoreUnavailableError as error:
            return str(error)
        return BLOCKED if await link.blocked() else None

    async def probe(self) -> None:
        """Raises ValueError where the settings keep it from its work, StoreUnavailableError where it is away."""
        try:
            await self._publishing()
        except RabbitRefusedError as error:
            raise ValueError(str(error)) from None

    async def send(self, where: str, messages: Sequence[Message]) -> None:
        """Each is confirmed when this returns. What a delivery does, too."""
        link = await self._publishing()
        try:
            await link.send(where, messages)
        except StoreUnavailableError:
            if not await link.blocked():  # one that is tells when it is not any more
                await self._forget(link)
            raise

    async def close(self) -> None:
        await self._forget(self._publisher)

    @property
    def parking(self) -> str:
        return f"{self._name}.parked"

    def _resting(self) -> Iterator[str]:
        return (f"{self._name}.retry-{seconds}s" for seconds in RETRY_DELAYS_S)

    async def _unpark(self, job_ids: Collection[str], end: Callable[[Job], Awaitable[None]]) -> Set[str]:
        """In one look at all that is parked."""
        wanted, found, others = frozenset(job_ids), set[str](), 0
        async with self._link(confirms=False) as link:
            async for message in link.taken(self.parking):
                job = job_of(message)
                if job.id in wanted:
                    await end(job)
                    await asked(message.ack())
                    found.add(job.id)
                else:
                    others += 1
            await link.give_back(self.parking, others)
        return found

    async def _publishing(self) -> Link:
        """The one link that publishes, opened anew where it was lost."""
        async with self._opening:
            if self._publisher is None or self._publisher.lost:
                await self._forget(self._publisher)
                self._publisher = await self._open(confirms=True)
            return self._publisher

    async def _forget(self, link: Link | None) -> None:
        if link is not None:
            if self._publisher is link:
                self._publisher = None
            await link.close()

    @asynccontextmanager
    async def _link(self, *, confirms: bool) -> AsyncIterator[Link]:
        link = await self._open(confirms=confirms)
        try:
            yield link
        finally:
            await link.close()

    async def _open(self, *, confirms: bool) -> Link:
        link = await open_link(self._url, self._ca_file, confirms=confirms)
        try:
            await self._declare(link)
        except BaseException:  # whatever it is, the connection must not outlive it
            await link.close()
            raise
        return link

    async def _declare(self, link: Link) -> None:
        for name in (self._name, self.parking):
            await link.declare(name, _QUORUM)
        for name, seconds in zip(self._resting(), RETRY_DELAYS_S, strict=True):
            arguments: dict[str, Any] = {
                **_QUORUM,
                "x-message-ttl": seconds * 1000,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self._name,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            await link.declare(name, arguments)


class _Arriving:
    """Deliveries as they come; the broker sends no more than `prefetch` that are not ended."""

    def __init__(self, deliver: Callable[[AbstractIncomingMessage], Delivery], prefetch: int) -> None:
        self._deliver = deliver
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue(prefetch + 1)

    async def take(self, message: AbstractIncomingMessage) -> None:
        self._arrived.put_nowait(self._deliver(message))

    def lose(self) -> None:
        while self._arrived.full():
            self._arrived.get_nowait()
        self._arrived.put_nowait(None)

    async def batches(self) -> AsyncGenerator[Sequence[Delivery], None]:
        while True:
            batch = [await self._arrived.get()]
            while not self._arrived.empty():
                batch.append(self._arrived.get_nowait())
            if None in batch:
                raise StoreUnavailableError("RabbitMQ: the connection was lost")
            yield [delivery for delivery in batch if delivery is not None]


class _Counting:
    """Of failures, and where a job goes after so many. `resting`: the queues of its delays."""

    def __init__(self, failures: JobFailures, resting: Sequence[str], parking: str) -> None:
        self._failures = failures
        self._resting = resting
        self.parking = parking

    async def counted(self, name: str, job: Job) -> int | None:
        """How many there are with this one; None where nobody can say."""
        now = datetime.now(UTC)
        try:
            async with asyncio.timeout(COUNTING_TIMEOUT_S):
                at = now.replace(microsecond=now.microsecond // 1000 * 1000)
                return await self._failures.add(name, known=job.failures, at=at)
        except (StoreUnavailableError, TimeoutError) as error:
            log.warning("a failure is not counted", job=job.id, reason=str(error) or "no answer in time")
            return None

    def place(self, counted: int | None, known: int) -> str:
        """A job whose failure is not counted rests as long as after the last that was, and is not parked."""
        if counted is None:
            counted = min(max(known, 1), len(self._resting))
        return self._resting[counted - 1] if counted <= len(self._resting) else self.parking


class _RabbitDelivery:
    """Implements `ports.Delivery`. What becomes of it is confirmed before it is taken from the queue that it is in."""

    def __init__(self, queue: RabbitQueue, counting: _Counting, message: AbstractIncomingMessage) -> None:
        self.job = job_of(message)
        self._queue = queue
        self._counting = counting
        self._counted_as = counted_as(message)
        self._message = message

    async def done(self) -> None:
        await asked(self._message.ack())

    async def failed(self, reason: str) -> None:
        counted = await self._counting.counted(self._counted_as, self.job)
        await self._move(self._counting.place(counted, self.job.failures), counted, reason)

    async def refused(self, reason: str) -> None:
        await self._move(self._counting.parking, await self._counting.counted(self._counted_as, self.job), reason)

    async def put_back(self) -> None:
        await asked(self._message.nack(requeue=True))

    async def _move(self, where: str, counted: int | None, reason: str) -> None:
        failures = self.job.failures if counted is None else counted
        moved = replace(self.job, failures=failures, reason=reason[:MAX_REASON])
        await self._queue.send(where, [message_of(moved, self._counted_as)])
        await self.done()


@asynccontextmanager
async def open_rabbit(
    url: str, name: str, failures: JobFailures | None = None, *, ca_file: Path | None = None
) -> AsyncIterator[RabbitQueue]:
    """`url` is amqp:// or, with TLS, amqps://; `name` is the workers' queue's, the others' names begin with it.
    `failures`: where they are counted; who takes no jobs needs none. Connects when it is first used, and anew after a
    loss. Raises ValueError for an address or a file of authorities that is none."""
    check_authorities(ca_file)
    queue = RabbitQueue(address(url), name, failures, ca_file)
    try:
        yield queue
    finally:
        await queue.close()
