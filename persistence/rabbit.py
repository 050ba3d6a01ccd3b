"""RabbitMQ: jobs on quorum queues. The only importer of its client.

Three sorts of queues: the one that workers take from, one for each delay of a failed job, whose messages the broker
moves back when their time is over, and the one of parked jobs. Failures are counted in the message, by whoever reports
them, and not by the broker: its own count grows when a worker dies, which is not the job's fault.

Sources: https://www.rabbitmq.com/docs/quorum-queues (delivery limit, at-least-once dead lettering),
https://www.rabbitmq.com/docs/ttl, https://www.rabbitmq.com/docs/confirms.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aio_pika
import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, AuthenticationError, ProbableAuthenticationError
from yarl import URL

from .ports import Delivery, StoreUnavailableError
from .queue_records import MAX_REASON, RETRY_DELAYS_S, Job, QueueDepth

TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
HEARTBEAT_S = 10
_AT_ONCE = 200  # messages that wait for their confirms
_REFUSALS = (AuthenticationError, ProbableAuthenticationError)
_NO_LIMIT = 2**31 - 1  # of deliveries: where nothing is said RabbitMQ 4 has 20
_QUORUM: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": _NO_LIMIT}
_FAULTS = (AMQPError, OSError, TimeoutError, RuntimeError, StopAsyncIteration)
"""The client has RuntimeError for a channel that is closed, StopAsyncIteration for an end amid the handshake."""

_T = TypeVar("_T")

log = structlog.get_logger("queue")


class RabbitQueue:
    """Implements `ports.JobQueue`. Opened by `open_rabbit`."""

    def __init__(self, url: URL, name: str, ca_file: Path | None) -> None:
        self._url = url
        self._name = name
        self._ca_file = ca_file
        self._opening = asyncio.Lock()
        self._publisher: _Link | None = None

    async def publish(self, jobs: Sequence[Job]) -> None:
        await self._send(self._name, jobs)

    @asynccontextmanager
    async def work(self, *, prefetch: int) -> AsyncIterator[AsyncGenerator[Sequence[Delivery], None]]:
        async with self._link(confirms=False) as link:
            arriving = _Arriving(self._deliver, prefetch)
            link.on_loss(arriving.lose)
            with _told_apart():
                await link.channel.set_qos(prefetch_count=prefetch, timeout=TIMEOUT_S)
                (await link.channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(arriving.lose)
                queue = await link.channel.get_queue(self._name, ensure=False)
                await queue.consume(arriving.take, timeout=TIMEOUT_S)
            yield arriving.batches()

    async def parked(self, *, limit: int) -> Sequence[Job]:
        """While they are looked at, another look at the same moment does not find them."""
        found: list[Job] = []
        async with self._link(confirms=False) as link:  # leaving it gives back what was taken
            async for message in _taken(link.channel, self.parking):
                found.append(_job(message))
                if len(found) >= limit:
                    break
        return sorted(found, key=lambda job: job.id)

    async def replay(self, job_id: str) -> bool:
        async def again(job: Job) -> None:
            await self._send(self._name, [replace(job, failures=0, reason=None)])

        return await self._unpark(job_id, again)

    async def drop(self, job_id: str) -> bool:
        async def forget(_: Job) -> None:
            return

        return await self._unpark(job_id, forget)

    async def depth(self) -> QueueDepth:
        async with self._link(confirms=False) as link:
            counts = [await _count(link.channel, name) for name in (self._name, self.parking, *self._resting())]
        return QueueDepth(ready=counts[0], resting=sum(counts[2:]), parked=counts[1])

    async def look(self) -> str | None:
        """What keeps it from its work, in a line; None where nothing does."""
        try:
            await self._publishing()
        except StoreUnavailableError as error:
            return str(error)
        return None

    async def probe(self) -> None:
        """Raises ValueError where the settings keep it from its work, StoreUnavailableError where it is away."""
        try:
            await self._publishing()
        except StoreUnavailableError as error:
            if not isinstance(error.__cause__, _REFUSALS):
                raise
            raise ValueError(str(error)) from None

    async def close(self) -> None:
        await self._forget(self._publisher)

    @property
    def parking(self) -> str:
        return f"{self._name}.parked"

    def _resting(self) -> Iterator[str]:
        return (f"{self._name}.retry-{seconds}s" for seconds in RETRY_DELAYS_S)

    def _deliver(self, message: AbstractIncomingMessage) -> Delivery:
        return _RabbitDelivery(self, message)

    async def rest(self, job: Job, reason: str) -> None:
        """What a delivery does with a job that failed."""
        names = tuple(self._resting())
        where = names[job.failures] if job.failures < len(names) else self.parking
        await self._send(where, [replace(job, failures=job.failures + 1, reason=reason[:MAX_REASON])])

    async def park(self, job: Job, reason: str) -> None:
        await self._send(self.parking, [replace(job, failures=job.failures + 1, reason=reason[:MAX_REASON])])

    async def _unpark(self, job_id: str, end: Callable[[Job], Awaitable[None]]) -> bool:
        async with self._link(confirms=False) as link:
            async for message in _taken(link.channel, self.parking):
                if message.message_id == job_id:
                    await end(_job(message))
                    await _asked(message.ack())
                    return True
        return False

    async def _send(self, where: str, jobs: Sequence[Job]) -> None:
        """Each is confirmed by a majority of the queue's nodes when this returns."""
        link = await self._publishing()
        try:
            for start in range(0, len(jobs), _AT_ONCE):
                messages = [_message(job) for job in jobs[start : start + _AT_ONCE]]
                exchange = link.channel.default_exchange
                sent = [exchange.publish(message, where, timeout=TIMEOUT_S) for message in messages]
                await _all(sent)
        except StoreUnavailableError:
            await self._forget(link)
            raise

    async def _publishing(self) -> _Link:
        """The one link that publishes, opened anew where it was lost."""
        async with self._opening:
            if self._publisher is None or self._publisher.lost:
                await self._forget(self._publisher)
                self._publisher = await self._open(confirms=True)
            return self._publisher

    async def _forget(self, link: _Link | None) -> None:
        if link is not None:
            if self._publisher is link:
                self._publisher = None
            await link.close()

    @asynccontextmanager
    async def _link(self, *, confirms: bool) -> AsyncIterator[_Link]:
        link = await self._open(confirms=confirms)
        try:
            yield link
        finally:
            await link.close()

    async def _open(self, *, confirms: bool) -> _Link:
        tls: Any = {"cafile": str(self._ca_file)} if self._ca_file else None
        connection = await _asked(aio_pika.connect(self._url, timeout=TIMEOUT_S, ssl_options=tls))
        try:
            with _told_apart():
                async with asyncio.timeout(TIMEOUT_S):
                    channel = await connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
                    await self._declare(channel)
        except BaseException:  # whatever it is, the connection must not outlive it
            await _closed(connection)
            raise
        return _Link(connection, channel)

    async def _declare(self, channel: AbstractChannel) -> None:
        for name in (self._name, self.parking):
            await channel.declare_queue(name, durable=True, arguments=_QUORUM, timeout=TIMEOUT_S)
        for name, seconds in zip(self._resting(), RETRY_DELAYS_S, strict=True):
            arguments: dict[str, Any] = {
                **_QUORUM,
                "x-message-ttl": seconds * 1000,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": self._name,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            await channel.declare_queue(name, durable=True, arguments=arguments, timeout=TIMEOUT_S)


class _Link:
    """A connection and its one channel. `lost` once either is."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self.channel = channel
        self.lost = False
        self._connection = connection
        self._tell: Callable[[], None] | None = None
        connection.close_callbacks.add(self._lose)
        channel.close_callbacks.add(self._lose)

    def on_loss(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        if self.lost:
            tell()

    def _lose(self, *_: object) -> None:
        self.lost = True
        if self._tell is not None:
            self._tell()

    async def close(self) -> None:
        await _closed(self._connection)


class _Arriving:
    """Deliveries as they come; the broker sends no more than `prefetch` that are not ended."""

    def __init__(self, deliver: Callable[[AbstractIncomingMessage], Delivery], prefetch: int) -> None:
        self._deliver = deliver
        self._arrived: asyncio.Queue[Delivery | None] = asyncio.Queue(prefetch + 1)

    async def take(self, message: AbstractIncomingMessage) -> None:
        self._arrived.put_nowait(self._deliver(message))

    def lose(self, *_: object) -> None:
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


class _RabbitDelivery:
    """Implements `ports.Delivery`. What becomes of it is confirmed before it is taken from the queue that it is in."""

    def __init__(self, queue: RabbitQueue, message: AbstractIncomingMessage) -> None:
        self.job = _job(message)
        self._queue = queue
        self._message = message

    async def done(self) -> None:
        await _asked(self._message.ack())

    async def failed(self, reason: str) -> None:
        await self._queue.rest(self.job, reason)
        await self.done()

    async def refused(self, reason: str) -> None:
        await self._queue.park(self.job, reason)
        await self.done()

    async def put_back(self) -> None:
        await _asked(self._message.nack(requeue=True))


@asynccontextmanager
async def open_rabbit(url: str, name: str, *, ca_file: Path | None = None) -> AsyncIterator[RabbitQueue]:
    """`url` is amqp:// or, with TLS, amqps://; `name` is the workers' queue's, the others' names begin with it.
    Connects when it is first used, and anew after a loss. Raises ValueError for an address that is none."""
    queue = RabbitQueue(address(url), name, ca_file)
    try:
        yield queue
    finally:
        await queue.close()


def address(url: str) -> URL:
    """Raises ValueError, which tells nothing of the address itself."""
    try:
        parsed = URL(url)
        known = parsed.scheme in ("amqp", "amqps") and bool(parsed.host)
    except ValueError:
        known = False
    if not known:
        raise ValueError("an address is written amqp://user:password@host:5672/virtual-host, or amqps:// with TLS")
    return parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=str(HEARTBEAT_S))


def _message(job: Job) -> aio_pika.Message:
    headers: Any = {"kind": job.kind, "failures": job.failures, "created_at": job.created_at.isoformat()}
    if job.reason is not None:
        headers["reason"] = job.reason
    if job.trace is not None:
        headers["traceparent"] = job.trace
    return aio_pika.Message(
        job.body.encode(),
        headers=headers,
        message_id=job.id,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def _job(message: AbstractIncomingMessage) -> Job:
    """Also of what somebody else has put there: no worker knows its kind, and it is parked."""
    headers = message.headers
    try:
        created_at = datetime.fromisoformat(str(headers.get("created_at")))
    except ValueError:
        created_at = datetime.now(UTC)
    failures, reason, trace = headers.get("failures"), headers.get("reason"), headers.get("traceparent")
    return Job(
        id=message.message_id or f"foreign-{message.delivery_tag}",
        kind=str(headers.get("kind", "")),
        body=message.body.decode(errors="replace"),
        created_at=created_at,
        failures=max(0, failures) if isinstance(failures, int) else 0,
        reason=None if reason is None else str(reason),
        trace=None if trace is None else str(trace),
    )


async def _taken(channel: AbstractChannel, name: str) -> AsyncGenerator[AbstractIncomingMessage, None]:
    """What is in a queue now. The channel's end gives back what was not acknowledged."""
    queue = await _asked(channel.get_queue(name, ensure=False))
    for _ in range(await _count(channel, name)):
        message = await _asked(queue.get(no_ack=False, fail=False, timeout=TIMEOUT_S))
        if message is None:
            return
        yield message


async def _count(channel: AbstractChannel, name: str) -> int:
    queue = await _asked(channel.declare_queue(name, passive=True, timeout=TIMEOUT_S))
    return queue.declaration_result.message_count or 0


async def _all(calls: Sequence[Awaitable[Any]]) -> None:
    """Waits for each of them, so that none is left behind."""
    results = await asyncio.gather(*(_asked(call) for call in calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _asked(call: Awaitable[_T]) -> _T:
    with _told_apart():
        async with asyncio.timeout(2 * TIMEOUT_S):
            return await call


@contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise StoreUnavailableError(f"RabbitMQ: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Of a refused connection the client's text names the address with its password."""
    if isinstance(error, _REFUSALS):
        return "it refuses this user, password or virtual host"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason}"
    return type(cause).__name__ if isinstance(error, OSError) else str(error)[:200] or type(error).__name__


async def _closed(connection: AbstractConnection) -> None:
    with suppress(*_FAULTS):  # it is being left anyway
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await connection.close()
