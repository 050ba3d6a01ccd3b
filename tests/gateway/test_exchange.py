"""One HTTP exchange, its ASGI server played by hand: what the client sends, when it leaves, what it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.client_address import client_address
from gateway.exchange import (
    ClientLeftError,
    Departure,
    Exchange,
    RequestError,
    headers_of,
    repeated_header,
    request_id_of,
)

DISCONNECT = {"type": "http.disconnect"}


SIZES: list[int] = []
"""What was told of bodies as they came."""


class Client:
    """Both ends of an ASGI connection. `receive` waits for what the test says; `sent` is what came back."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)
        self.sent: list[dict[str, Any]] = []
        self.departure = Departure()
        self.disconnect_when_answered = False

    async def receive(self) -> dict[str, Any]:
        return await self.messages.get()

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if self.disconnect_when_answered and not message.get("more_body", "status" in message):
            self.leave()

    def leave(self) -> None:
        self.departure.happen()

    def exchange(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> Exchange:
        scope = {
            "type": "http",
            "method": "POST",
            "headers": list(headers),
            "extensions": {Departure.EXTENSION: self.departure},
        }
        return Exchange(scope, self.receive, self.send)


def gone() -> Client:
    client = Client()
    client.leave()
    return client


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    yield
    await asyncio.sleep(0)  # what was cancelled gets its turn to end
    assert asyncio.all_tasks() == {asyncio.current_task()}


# The request id


@pytest.mark.parametrize("given", [b"a", b"0190-abc:DEF_1.2", b"x" * 128])
async def test_a_plain_request_id_is_taken_and_echoed(given: bytes) -> None:
    client = Client()
    exchange = client.exchange([(b"x-request-id", given)])
    await exchange.respond_json(200, {})
    assert exchange.request_id == given.decode()
    assert (b"x-request-id", given) in client.sent[0]["headers"]


@pytest.mark.parametrize(
    "given",
    [b"", b"x" * 129, b"a b", b"a\r\nset-cookie: x=1", b"a\n", b"a\x00", b"\xff\xfe", b'"', b"<script>", b"\x1b[31m"],
)
async def test_any_other_request_id_is_replaced(given: bytes) -> None:
    made = request_id_of({b"x-request-id": given})
    assert len(made) == 32
    assert made.isalnum()
    client = Client()
    exchange = client.exchange([(b"x-request-id", given)])
    await exchange.respond_json(200, {})
    assert (b"x-request-id", exchange.request_id.encode()) in client.sent[0]["headers"]
    assert given == b"" or given not in b"".join(value for _, value in client.sent[0]["headers"])


def test_made_request_ids_differ_and_sort_by_time() -> None:
    made = [request_id_of({}) for _ in range(100)]
    assert len(set(made)) == 100
    assert made == sorted(made)


# Headers that are given several times


def scope_of(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"headers": list(headers)}


def test_a_list_in_parts_is_put_together() -> None:
    """As proxies do, each with a line of its own."""
    scope = scope_of((b"x-forwarded-for", b"192.0.2.1"), (b"host", b"x"), (b"x-forwarded-for", b"10.0.0.1"))
    headers = headers_of(scope)
    assert headers == {b"x-forwarded-for": b"192.0.2.1, 10.0.0.1", b"host": b"x"}
    assert repeated_header(scope, headers) is None
    assert client_address(("10.0.0.2", 1), headers, [ip_network("10.0.0.0/8")]) == "192.0.2.1"


@pytest.mark.parametrize(
    "name", [b"authorization", b"content-encoding", b"content-length", b"content-type", b"host", b"origin"]
)
def test_what_must_be_single_is_found(name: bytes) -> None:
    scope = scope_of((name, b"a"), (b"accept", b"*/*"), (name, b"a"))
    assert repeated_header(scope, headers_of(scope)) == name.decode()


# The body


async def test_a_body_in_one_part() -> None:
    assert await Client(part(b"all of it", more=False)).exchange().body(100, SIZES.append) == b"all of it"


async def test_a_body_in_parts() -> None:
    client = Client(part(b"a", more=True), part(b"", more=True), part(b"bc", more=True), part(b"", more=False))
    assert await client.exchange().body(3, SIZES.append) == b"abc"


async def test_a_body_as_sparse_as_the_specification_allows() -> None:
    assert await Client({"type": "http.request"}).exchange().body(3, SIZES.append) == b""


async def test_a_declared_length_is_refused_unread() -> None:
    client = Client(part(b"abcd", more=False))
    with pytest.raises(RequestError) as caught:
        await client.exchange([(b"content-length", b"4")]).body(3, SIZES.append)
    assert (caught.value.status, caught.value.code) == (413, "BAD_USER_INPUT")
    assert client.messages.qsize() == 1


@pytest.mark.parametrize("declared", [b"3", b"0", b"junk", b"-1"])
async def test_a_declared_length_is_not_trusted(declared: bytes) -> None:
    client = Client(part(b"ab", more=True), part(b"cd", more=True), part(b"never read", more=False))
    with pytest.raises(RequestError) as caught:
        await client.exchange([(b"content-length", declared)]).body(3, SIZES.append)
    assert caught.value.status == 413
    assert client.messages.qsize() == 1


async def test_the_limit_itself_is_allowed() -> None:
    assert await Client(part(b"abc", more=False)).exchange([(b"content-length", b"3")]).body(3, SIZES.append) == b"abc"


async def test_leaving_in_the_middle_of_the_body() -> None:
    with pytest.raises(ClientLeftError):
        await Client(part(b"ab", more=True), DISCONNECT).exchange().body(100, SIZES.append)


async def test_a_shutdown_while_the_body_is_read() -> None:
    reading = asyncio.create_task(Client(part(b"ab", more=True)).exchange().body(100, SIZES.append))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


# The answer


async def test_an_answer() -> None:
    client = Client()
    exchange = client.exchange()
    await exchange.respond(418, b"short", media_type=b"text/plain", headers=((b"x-more", b"1"),))
    start, body = client.sent
    assert start["status"] == exchange.status == 418
    assert dict(start["headers"]) == {
        b"content-type": b"text/plain",
        b"content-length": b"5",
        b"x-request-id": exchange.request_id.encode(),
        b"x-more": b"1",
    }
    assert body["body"] == b"short"
    assert not body.get("more_body", False)


async def test_json_is_answered_with_the_headers_given() -> None:
    client = Client()
    await client.exchange().respond_json(401, {"errors": ["é"]}, headers=((b"www-authenticate", b"Bearer"),))
    assert json.loads(client.sent[1]["body"]) == {"errors": ["é"]}
    assert (b"www-authenticate", b"Bearer") in client.sent[0]["headers"]


async def test_a_streamed_answer() -> None:
    client = Client()
    exchange = client.exchange()
    assert (exchange.status, exchange.answered) == (0, False)
    await exchange.start(200, media_type=b"text/event-stream")
    await exchange.write(b"one")
    assert not exchange.answered
    await exchange.write(b"two", more=False)
    assert exchange.answered
    assert [(sent.get("body"), sent.get("more_body")) for sent in client.sent[1:]] == [(b"one", True), (b"two", False)]
    assert b"content-length" not in dict(client.sent[0]["headers"])


# The client that leaves


class Work:
    """Something slow: waits until it is let go, and knows how it ended."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.cleaned_up = False

    async def run(self) -> None:
        try:
            self.started.set()
            await self.release.wait()
        finally:
            await asyncio.sleep(0)  # an orderly end may take a turn or two
            self.cleaned_up = True


async def serve(exchange: Exchange, work: Work) -> str:
    with exchange.until_client_leaves():
        await work.run()
        await exchange.respond_json(200, {})
    return "answered"


async def test_work_ends_when_the_client_leaves() -> None:
    client, work = Client(), Work()
    serving = asyncio.create_task(serve(client.exchange(), work))
    await work.started.wait()
    client.leave()
    with pytest.raises(ClientLeftError):
        await serving
    assert work.cleaned_up
    assert serving.cancelling() == 0, "nobody cancelled the task itself"
    assert client.sent == []


async def test_the_task_is_usable_after_the_client_left() -> None:
    async def serve_and_go_on() -> str:
        try:
            await serve(client.exchange(), work)
        except ClientLeftError:
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
            return "went on"
        return "answered"

    client, work = Client(), Work()
    serving = asyncio.create_task(serve_and_go_on())
    await work.started.wait()
    client.leave()
    assert await serving == "went on"


async def test_a_client_that_left_before_the_work_began() -> None:
    client, work = gone(), Work()
    with pytest.raises(ClientLeftError):
        await serve(client.exchange(), work)
    assert work.cleaned_up


async def test_work_that_ends_by_itself_is_left_alone() -> None:
    client, work = Client(), Work()
    work.release.set()
    assert await serve(client.exchange(), work) == "answered"
    client.leave()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_disconnect_that_follows_a_full_answer_is_no_leaving() -> None:
    """Servers report one as soon as the answer is out, while the handler may still be putting things away."""
    client = Client()
    client.disconnect_when_answered = True
    exchange = client.exchange()
    with exchange.until_client_leaves():
        await exchange.start(200, media_type=b"text/event-stream")
        await exchange.write(b"one")
        await exchange.write(b"", more=False)
        for _ in range(5):
            await asyncio.sleep(0)


async def test_half_an_answer_does_not_count_as_one() -> None:
    client = Client()
    exchange = client.exchange()

    async def stream() -> None:
        with exchange.until_client_leaves():
            await exchange.start(200, media_type=b"text/event-stream")
            await exchange.write(b"one")
            client.leave()
            await asyncio.Event().wait()

    with pytest.raises(ClientLeftError):
        await stream()


async def test_an_error_in_the_work_stays_that_error() -> None:
    client = Client()
    with pytest.raises(ZeroDivisionError), client.exchange().until_client_leaves():
        raise ZeroDivisionError


async def test_an_error_while_cleaning_up_after_the_client_is_not_hidden() -> None:
    async def careless() -> None:
        with gone().exchange().until_client_leaves():
            try:
                await asyncio.Event().wait()
            finally:
                raise ZeroDivisionError

    serving = asyncio.create_task(careless())
    with pytest.raises(ZeroDivisionError):
        await serving
    assert serving.cancelling() == 0


async def test_work_that_swallows_the_cancellation_is_still_over() -> None:
    async def stubborn() -> None:
        with gone().exchange().until_client_leaves(), suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    with pytest.raises(ClientLeftError):
        await stubborn()


async def test_a_shutdown_is_not_taken_for_a_client_that_leaves() -> None:
    client, work = Client(), Work()
    serving = asyncio.create_task(serve(client.exchange(), work))
    await work.started.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert work.cleaned_up


@pytest.mark.parametrize("shutdown_first", [True, False])
async def test_a_shutdown_as_the_client_leaves_is_not_swallowed(shutdown_first: bool) -> None:
    """Both within one turn of the loop: the cancellation from outside counts."""
    client, work = Client(), Work()
    serving = asyncio.create_task(serve(client.exchange(), work))
    await work.started.wait()
    await asyncio.sleep(0)
    if shutdown_first:
        serving.cancel()
        client.leave()
    else:
        client.leave()
        asyncio.get_running_loop().call_soon(serving.cancel)
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_deadline_around_the_exchange_is_kept() -> None:
    client, work = Client(), Work()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await serve(client.exchange(), work)
    assert work.cleaned_up
