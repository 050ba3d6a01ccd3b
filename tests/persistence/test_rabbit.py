"""A RabbitMQ that goes away, comes back, freezes, refuses a password, or loses its queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed
from uuid_utils import uuid7

from persistence.ports import Delivery, StoreUnavailableError
from persistence.queue_records import RETRY_DELAYS_S, Job, QueueDepth
from persistence.rabbit import link
from persistence.rabbit.address import address
from persistence.rabbit.messages import message_of
from persistence.rabbit.queue import RabbitQueue, open_rabbit
from resolvers.worker import working
from tests.servers.authority import new_authority
from tests.servers.queue_depth import until_depth
from tests.servers.rabbit import Broker, rabbit_or_skip, running_rabbit
from tests.servers.together import entered

from .job_failures import MemoryJobFailures


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "TIMEOUT_S", 2.0)
    monkeypatch.setattr(link, "CLOSE_TIMEOUT_S", 0.2)


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One that tests stop and start."""
    with ExitStack() as stack:
        yield entered(stack, running_rabbit())[0]


@pytest.fixture
async def queue() -> AsyncIterator[RabbitQueue]:
    async with open_rabbit(rabbit_or_skip().url, uuid4().hex, MemoryJobFailures()) as found:
        yield found


def jobs(count: int) -> Sequence[Job]:
    return [Job(str(uuid7()), "ledger", "{}", datetime.now(UTC)) for _ in range(count)]


async def drained(queue: RabbitQueue, count: int) -> Sequence[str]:
    done: list[str] = []
    async with asyncio.timeout(30), queue.work(prefetch=20) as batches, aclosing(batches):
        async for batch in batches:
            for delivery in batch:
                await delivery.done()
                done.append(delivery.job.id)
            if len(done) >= count:
                break
    return done


async def all_of(batches: AsyncGenerator[Sequence[Delivery], None]) -> None:
    async for _ in batches:
        pass


async def test_what_was_confirmed_outlives_a_broker_that_is_killed(broker: Broker) -> None:
    async with open_rabbit(broker.url, uuid4().hex, MemoryJobFailures()) as queue:
        sent = jobs(50)
        await queue.publish(sent)
        async with queue.work(prefetch=5) as batches, aclosing(batches):
            held = [*await anext(batches)]
            broker.kill()
            with pytest.raises(StoreUnavailableError, match=r"^RabbitMQ: "):
                await all_of(batches)
            with pytest.raises(StoreUnavailableError):
                await held[0].done()
            with pytest.raises(StoreUnavailableError):
                await held[1].failed("while it is away")
        with pytest.raises(StoreUnavailableError, match=r"^RabbitMQ: "):
            await queue.publish(jobs(1))
        assert (await queue.look() or "").startswith("RabbitMQ: ")
        broker.start()
        assert await queue.look() is None
        more = jobs(3)
        await queue.publish(more)
        assert set(await drained(queue, 53)) == {each.id for each in [*sent, *more]}


async def test_each_queue_is_kept_by_a_majority_and_counts_no_deliveries(queue: RabbitQueue) -> None:
    """The broker refuses to hear of a queue that it has otherwise."""
    await queue.probe()
    name = queue.parking.removesuffix(".parked")
    rests = {f"{name}.retry-{seconds}s": seconds for seconds in RETRY_DELAYS_S}
    kept: dict[str, object] = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}
    async with await aio_pika.connect(rabbit_or_skip().url) as connection:
        for each in (name, queue.parking, *rests):
            back = {
                "x-message-ttl": rests.get(each, 0) * 1000,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": name,
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            }
            right = {**kept, **(back if each in rests else {})}
            async with connection.channel() as channel:
                await channel.declare_queue(each, durable=True, arguments=right)
            for wrong in ({**right, "x-queue-type": "classic"}, {**right, "x-delivery-limit": 20}):
                channel = await connection.channel()
                with pytest.raises(ChannelPreconditionFailed):
                    await channel.declare_queue(each, durable=True, arguments=wrong)


async def test_one_that_freezes_is_given_up_in_time_and_used_again(broker: Broker) -> None:
    async with open_rabbit(broker.url, uuid4().hex, MemoryJobFailures()) as queue:
        await queue.publish(jobs(1))
        with broker.frozen():
            began = asyncio.get_running_loop().time()
            with pytest.raises(StoreUnavailableError, match="no answer in time"):
                await queue.publish(jobs(1))
            assert asyncio.get_running_loop().time() - began < 3 * link.TIMEOUT_S
        await queue.publish(jobs(1))
        assert (await queue.depth()).ready >= 2  # the one in between may be there, or not


async def test_one_that_takes_no_messages_says_so_until_it_does(broker: Broker) -> None:
    """It answers all else. Who sends is told at once, but for the first, to whom it says nothing in time."""
    async with open_rabbit(broker.url, uuid4().hex) as queue:
        await queue.publish(jobs(1))
        with ExitStack() as short:
            await asyncio.to_thread(short.enter_context, broker.short_of_memory())
            for told in ("no answer in time", "takes no messages"):
                with pytest.raises(StoreUnavailableError, match=told):
                    await queue.publish(jobs(1))
            assert "takes no messages" in (await queue.look() or "")
            with pytest.raises(StoreUnavailableError, match="takes no messages"):
                await queue.publish([])
            await until_depth(queue, QueueDepth(ready=1, resting=0, parked=0))
            await asyncio.to_thread(short.close)
        async with asyncio.timeout(20):
            while await queue.look() is not None:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.05)
        await queue.publish(jobs(1))
        await until_depth(queue, QueueDepth(ready=3, resting=0, parked=0))  # what it had not confirmed is in it, too


async def test_a_worker_whose_queue_is_deleted_hears_of_it(queue: RabbitQueue) -> None:
    await queue.publish(jobs(1))
    async with asyncio.timeout(20), queue.work(prefetch=5) as batches, aclosing(batches):
        await (await anext(batches))[0].done()
        async with await aio_pika.connect(rabbit_or_skip().url) as other:
            channel = await other.channel()
            await channel.queue_delete(queue.parking.removesuffix(".parked"))
        with pytest.raises(StoreUnavailableError):
            await anext(batches)
    with pytest.raises(StoreUnavailableError):  # nobody would ever take it
        await queue.publish(jobs(1))
    await queue.publish(jobs(1))  # on a new connection, which has made the queue anew
    await until_depth(queue, QueueDepth(ready=1, resting=0, parked=0))


async def test_what_somebody_else_put_there_is_a_job_that_nobody_knows(queue: RabbitQueue) -> None:
    await queue.probe()
    async with await aio_pika.connect(rabbit_or_skip().url) as other:
        channel = await other.channel()
        where = queue.parking.removesuffix(".parked")
        await channel.default_exchange.publish(aio_pika.Message(b"\xff", headers={"failures": "x"}), where)
    async with asyncio.timeout(20), queue.work(prefetch=5) as batches, aclosing(batches):
        (delivery,) = await anext(batches)
        assert (delivery.job.kind, delivery.job.failures) == ("", 0)
        await delivery.refused("unknown")
    (parked,) = await queue.parked(limit=5)
    assert await queue.drop([parked.id])


async def test_all_that_are_parked_are_found_whatever_their_order(queue: RabbitQueue) -> None:
    """By whoever looks right after another."""
    await queue.probe()
    parked = [replace(each, failures=6) for each in reversed(jobs(300))]
    await queue.send(queue.parking, [message_of(each) for each in parked])
    for _ in range(3):
        assert len(await queue.parked(limit=999)) == len(parked)
    ids = [each.id for each in await queue.parked(limit=200)]
    assert await queue.replay(ids) == {*ids}
    await until_depth(queue, QueueDepth(ready=200, resting=0, parked=100))
    assert await queue.drop([each.id for each in parked]) == {each.id for each in parked} - {*ids}
    await until_depth(queue, QueueDepth(ready=200, resting=0, parked=0))


@pytest.mark.parametrize("created_at", ["2026-01-02T03:04:05", "0001-01-01T00:00:00+23:59", "yesterday"])
async def test_a_time_that_somebody_else_wrote_is_one_to_reckon_with(queue: RabbitQueue, created_at: str) -> None:
    """A worker tells how old jobs are: one that has no age would keep it from all others."""
    await queue.probe()
    async with await aio_pika.connect(rabbit_or_skip().url) as other:
        channel = await other.channel()
        message = aio_pika.Message(b"{}", headers={"kind": "foreign", "created_at": created_at})
        await channel.default_exchange.publish(message, queue.parking.removesuffix(".parked"))
    async with working(queue, {}):
        async with asyncio.timeout(20):
            while not (parked := await queue.parked(limit=1)):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.05)
    assert datetime.now(UTC) - parked[0].created_at >= timedelta()


async def test_a_count_of_failures_that_nobody_can_have_is_none(queue: RabbitQueue) -> None:
    await queue.depth()
    connection = await aio_pika.connect(rabbit_or_skip().url)
    async with connection, connection.channel() as channel:
        for count in (-9, 2**63 - 1):
            message = aio_pika.Message(b"{}", headers={"kind": "ledger", "failures": count}, message_id=f"{count}")
            await channel.default_exchange.publish(message, queue.parking.removesuffix(".parked"))
    async with queue.work(prefetch=1) as batches, aclosing(batches):
        for _ in range(2):
            (delivery,) = await anext(batches)
            assert delivery.job.failures == 0
            await delivery.refused("boom")
    assert [each.failures for each in await queue.parked(limit=9)] == [1, 1]


async def test_a_wrong_password_is_told_without_it() -> None:
    url = rabbit_or_skip().url.replace("guest:guest", "guest:not-the-password")
    async with open_rabbit(url, "jobs") as queue:
        with pytest.raises(ValueError, match="refuses this user") as caught:
            await queue.probe()
        assert "not-the-password" not in f"{caught.value!r} {await queue.look()}"


async def test_a_virtual_host_that_is_none_is_refused() -> None:
    async with open_rabbit(f"{rabbit_or_skip().url}none", "jobs") as queue:
        with pytest.raises(ValueError, match=r"^RabbitMQ: it refuses this virtual host, or has none of that name$"):
            await queue.probe()


@pytest.mark.parametrize(("name", "told"), [("amq.jobs", "ACCESS_REFUSED"), ("classic", "PRECONDITION_FAILED")])
async def test_a_queue_that_it_refuses_is_told_at_once(name: str, told: str) -> None:
    """Of a reserved name, or one that is there as another sort."""
    async with await aio_pika.connect(rabbit_or_skip().url) as other:
        await (await other.channel()).declare_queue("classic", exclusive=False, auto_delete=True)
        async with open_rabbit(rabbit_or_skip().url, name) as queue:
            with pytest.raises(ValueError, match=f"^RabbitMQ: {told} - "):
                await queue.probe()


async def test_a_file_that_the_address_names_and_is_not_there(tmp_path: Path) -> None:
    async with open_rabbit(f"{rabbit_or_skip().tls_url}?certfile={tmp_path / 'none.pem'}", "jobs") as queue:
        with pytest.raises(ValueError, match=r"names is not there$"):
            await queue.probe()


async def test_tls_with_its_own_authority(tmp_path: Path) -> None:
    broker = rabbit_or_skip()
    strange = new_authority("another").write(tmp_path / "other.pem")
    name = uuid4().hex
    async with open_rabbit(broker.tls_url, name, MemoryJobFailures(), ca_file=broker.authority) as queue:
        await queue.publish(jobs(2))
        await drained(queue, 2)
    for ca_file in (strange, None):
        async with open_rabbit(broker.tls_url, name, ca_file=ca_file) as queue:
            with pytest.raises(StoreUnavailableError) as caught:
                await queue.probe()
            assert "guest" not in str(caught.value)
            assert "CERTIFICATE_VERIFY_FAILED" in (await queue.look() or "")


async def test_authorities_that_can_t_be_read_are_told_at_once(tmp_path: Path) -> None:
    """And not taken for a server that is away."""
    with pytest.raises(ValueError, match=r"/none\.pem can't be read as a file of certificates$"):
        async with open_rabbit("amqps://127.0.0.1:1/", "jobs", ca_file=tmp_path / "none.pem"):
            pass


async def test_a_server_that_is_away_keeps_nobody_from_opening() -> None:
    async with open_rabbit("amqp://guest:not-the-password@127.0.0.1:1/", "jobs") as queue:
        with pytest.raises(StoreUnavailableError) as caught:
            await queue.probe()
        assert str(caught.value) == "RabbitMQ: ConnectionRefusedError"


async def test_one_that_hangs_up_amid_the_handshake_is_away() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # the protocol's header
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    async with server, open_rabbit(url, "jobs", MemoryJobFailures()) as queue:
        for ask in (queue.depth, queue.probe):
            with pytest.raises(StoreUnavailableError):
                await ask()
        with pytest.raises(StoreUnavailableError):
            async with queue.work(prefetch=1):
                pass


@pytest.mark.parametrize(
    "url", ["http://h/", "amqp://", "amqp://h:port/", "amqp://h:0/", "amqp://h:65536/", "amqp", ""]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="an address is written amqp://"):
        address(url)


@pytest.mark.parametrize("fault", [None, RuntimeError("the channel is closed")])
async def test_a_cancellation_that_the_client_swallows_is_heeded(fault: Exception | None) -> None:
    async def swallowing() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        if fault is not None:
            raise fault

    calling = asyncio.create_task(link.asked(swallowing()))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
