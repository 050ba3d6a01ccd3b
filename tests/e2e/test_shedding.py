"""A process that is at the most that it does at once: what more comes is refused, what runs goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import httpx
import pytest

from gateway.object_files import MAX_UPLOADS

from .documents import COMPLETE
from .processes import Server, Vendor, post, running_server, server_environment
from .raw_socket import RawSocket, raw_socket
from .scraping import scrape
from .test_cancellation import open_calls, own_model, until
from .test_endpoint import TYPENAME, error_of
from .test_many import MANY
from .test_providers import asked
from .test_sockets import DATA, LONG, a_stream, subscribe

MOST = 3
SOCKETS = 2


@pytest.fixture(scope="module")
def small(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bounds = {
        "MAX_OPERATIONS_IN_FLIGHT": str(MOST),
        "MAX_SOCKETS_PER_PRINCIPAL": str(SOCKETS),
        "MAX_UPSTREAM_CONNECTIONS": str(MOST),
    }
    with running_server(server_environment(tmp_path_factory.mktemp("small"), vendor, **bounds)) as started:
        yield started


@pytest.fixture
async def client(small: Server, organisation: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {small.token(organisation)}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        yield client


@asynccontextmanager
async def busy(server: Server, token: str) -> AsyncIterator[RawSocket]:
    """As many streams as the server takes, for the better part of a minute."""
    async with raw_socket(server, token) as socket:
        for number in range(MOST):
            await socket.say(subscribe(str(number), a_stream(LONG)))
            while (await socket.hear())["id"] != str(number):
                pass
        yield socket


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """For what another process does, which sends no signal."""
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen in time")


async def test_more_is_refused_and_what_runs_goes_on(
    small: Server, client: httpx.AsyncClient, organisation: str
) -> None:
    async def taken() -> bool:
        return (await client.post(small.url, json=TYPENAME)).status_code == 200

    async with busy(small, small.token(organisation)) as socket:
        refused = await client.post(small.url, json=TYPENAME)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        told = error_of(refused)
        assert (told["code"], told["retryable"], told["retryAfterMs"]) == ("SERVICE_UNAVAILABLE", True, 1000)
        stream = await client.post(small.url, json=a_stream("Hi."), headers={"accept": "text/event-stream"})
        assert stream.status_code == 503
        told_of = scrape(small.port)
        assert told_of.value("operations_in_flight") == told_of.value("operations_in_flight_limit") == MOST
        assert told_of.value("operations_shed_total") == 2
        for path in ("/healthcheck", "/readyz"):
            assert (await client.get(small.url.replace("/graphql", path))).status_code == 200
        stranger = await client.post(small.url, json=TYPENAME, headers={"authorization": ""})
        assert stranger.status_code == 401
        for _ in range(10 * MOST):
            assert (await socket.hear())["type"] == "next"
        await socket.say({"id": "0", "type": "complete"})
        await eventually(taken)


async def test_a_socket_is_told_and_stays(small: Server, organisation: str) -> None:
    async def taken() -> bool:
        await waiting.say(subscribe("1", TYPENAME))
        message = await waiting.hear()
        return bool(message["type"] == "next" and message["payload"] == DATA and await waiting.hear())

    token = small.token(organisation)
    async with raw_socket(small, token) as waiting:
        async with busy(small, token):
            await waiting.say(subscribe("1", TYPENAME))
            message = await waiting.hear()
            assert (message["id"], message["type"]) == ("1", "error")
            assert message["payload"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
            assert message["payload"][0]["extensions"]["retryAfterMs"] == 1000
        await eventually(taken)


async def test_a_principal_has_so_many_sockets_and_no_more(small: Server, organisation: str) -> None:
    token, other = small.token(organisation), small.token(f"{organisation}-other")
    async with AsyncExitStack() as stack:
        first, _ = [await stack.enter_async_context(raw_socket(small, token)) for _ in range(SOCKETS)]
        async with raw_socket(small) as refused:
            await refused.say({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
            code, reason = await refused.closed()
        assert (code, "too many sockets" in reason) == (1013, True)
        await stack.enter_async_context(raw_socket(small, other))
        first.writer.close()

        async def opens() -> bool:
            async with raw_socket(small) as socket:
                await socket.say({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
                _, data = await socket.receive()
                return b"connection_ack" in data

        await eventually(opens)


@asynccontextmanager
async def half_sent(server: Server, head: str, body: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """A request of 4 MB of which that much comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{head} HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n".encode() + body)
    try:
        yield reader
    finally:
        writer.close()


async def test_large_bodies_are_bounded_all_together(
    small: Server, client: httpx.AsyncClient, organisation: str
) -> None:
    """Else whoever sends many, and none to its end, has them all kept in memory."""
    large = {"query": TYPENAME["query"], "variables": {"unused": "x" * 300_000}}

    async def answered(call: dict[str, object], status: int) -> bool:
        return (await client.post(small.url, json=call)).status_code == status

    head = f"authorization: Bearer {small.token(organisation)}\r\ncontent-type: application/json\r\n\r\n".encode()
    assert await answered(large, 200)
    async with half_sent(small, "POST /graphql", head + b"x" * 300_000):
        await eventually(partial(answered, large, 503))
        assert await answered(TYPENAME, 200), "there is still a place for it"
    await eventually(partial(answered, large, 200))


async def test_who_has_all_calls_to_vendors_under_way_shuts_out_nobody(
    small: Server, vendor: Vendor, client: httpx.AsyncClient, organisation: str
) -> None:
    """One operation is enough for that, with many inputs."""
    silent = {**asked("openai", "[[hang=0]]"), "model": own_model("openai", organisation)}
    many = {"query": MANY, "variables": {"inputs": [silent] * (2 * MOST)}}
    waiting = asyncio.create_task(client.post(small.url, json=many))
    await until(lambda: open_calls(vendor, "openai", organisation) == MOST)
    another = small.token(f"{organisation}-other")
    answer = await asyncio.to_thread(post, small, another, COMPLETE, {"input": asked("openai", "[[tokens=2]]")})
    assert answer["data"]["complete"]["usage"]["outputTokens"] == 2
    assert open_calls(vendor, "openai", organisation) == MOST
    waiting.cancel()
    await until(lambda: not open_calls(vendor, "openai", organisation))


async def test_so_are_uploads(small: Server, client: httpx.AsyncClient) -> None:
    made = await client.post(small.url, json={"query": "mutation { uploadBatchFile(input: {}) { url } }"})
    url = made.json()["data"]["uploadBatchFile"]["url"]

    async def answered(status: int) -> bool:
        return (await client.put(small.url.replace("/graphql", url), content=b"{}")).status_code == status

    async with AsyncExitStack() as stack:
        sending = [half_sent(small, f"PUT {url}", b"\r\nx") for _ in range(MAX_UPLOADS + 1)]
        answers = [(await stack.enter_async_context(each)).read(100) for each in sending]
        [first], others = await asyncio.wait(map(asyncio.ensure_future, answers), return_when=asyncio.FIRST_COMPLETED)
        assert first.result().startswith(b"HTTP/1.1 503 ")
        assert await answered(503)
        for each in others:
            each.cancel()
    await eventually(partial(answered, 200))
