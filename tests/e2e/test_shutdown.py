"""SIGTERM while work runs, for one process and for several: what runs ends as it would have, or at the limit is told
that it can't; nothing new is taken; the ledger holds every attempt; the exit code is 0."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.servers.ports import free_port

from .callers import GONE, asking, calling, close_of
from .documents import STREAM
from .processes import Server, Vendor, post, running_server, server_environment
from .site import Site

FEEDS = (
    "subscription { providerHealth { name } }",
    "subscription { usageLive(input: { last: 1, bucket: DAY }) { asOf } }",
    "subscription ($batch: ID!) { batchProgress(id: $batch) { state } }",
)
SUBMIT = "mutation Submit($input: SubmitBatchInput!) { submitBatch(input: $input) { batch { id } } }"
PROCESSES = 2


@pytest.fixture
def sharing(site: Site) -> Mapping[str, str]:
    """What several processes have in common."""
    return site.environments[0]


@pytest.fixture(params=[1, PROCESSES], ids=["alone", "several"])
def environment(request: pytest.FixtureRequest, vendor: Vendor, tmp_path: Path) -> dict[str, str]:
    """Of a server in production; of several processes, where those share their servers."""
    more = {"ENVIRONMENT": "PRODUCTION", "INTERNAL_PORT": str(free_port())}
    if request.param == 1:
        return server_environment(tmp_path / "data", vendor, **more)
    several = {"MAX_WORKERS": str(request.param), "DATA_DIR": str(tmp_path / "data")}
    return {**request.getfixturevalue("sharing"), **several, **more}


@pytest.fixture
def model() -> str:
    return f"shutdown-{secrets.token_hex(4)}"


def probe(environment: dict[str, str]) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{environment['INTERNAL_PORT']}/readyz", timeout=30)


BOOKED = "{ completions(first: 9) { nodes { outcome streamed timeToFirstTokenMs usage { outputTokens } } } }"


def outcomes(environment: dict[str, str], model: str) -> Sequence[tuple[str, bool]]:
    """Of what the ledger has, and whether it has tokens of it, of a stream also that it had begun: as the next start
    finds it."""
    with running_server({**environment, "MAX_WORKERS": "1"}) as server:
        nodes = post(server, server.token(model), BOOKED)["data"]["completions"]["nodes"]
    begun = [(node["timeToFirstTokenMs"] is not None) == node["streamed"] for node in nodes]
    tokens = [node["usage"]["outputTokens"] > 0 for node in nodes]
    return sorted((node["outcome"], all(each)) for node, *each in zip(nodes, begun, tokens, strict=True))


async def ended(server: Server) -> int:
    return await asyncio.to_thread(server.process.wait, 60)


async def test_what_runs_ends_as_it_would_have(environment: dict[str, str], vendor: Vendor, model: str) -> None:
    with running_server(environment) as server:
        async with asyncio.timeout(90), calling(server.url, server.token(model), vendor, model, tokens=150) as callers:
            assert probe(environment).text == "ready\n"
            server.process.send_signal(signal.SIGTERM)
            assert await close_of(callers.idle) == GONE
            assert not callers.socket.closed
            assert not callers.mutation.done()
            unready = await asyncio.to_thread(probe, environment)
            assert (unready.status_code, unready.text) == (503, "missing: the server itself (it is shutting down)\n")
            with pytest.raises(httpx.ConnectError):
                await asyncio.to_thread(httpx.get, f"http://127.0.0.1:{server.port}/healthcheck")
            call = {"query": STREAM, "variables": {"input": asking(model, "[[tokens=1]]")}}
            await callers.socket.send_json({"id": "2", "type": "subscribe", "payload": call})
            refused = await answer_to(callers.socket, "2")
            assert (refused["type"], code_of(refused)) == ("error", "SERVICE_UNAVAILABLE")
            last, end = await callers.socket_end()
            assert (last["completion"]["finishReason"], end) == ("STOP", "complete")
            assert await close_of(callers.socket) == GONE
            last, complete = await callers.events_end()
            assert (last["completion"]["finishReason"], complete) == ("STOP", True)
            assert (await callers.mutation)["data"]["complete"]["finishReason"] == "STOP"
        assert await ended(server) == 0
    assert outcomes(environment, model) == [("SUCCEEDED", True)] * 3


@pytest.mark.parametrize("hurry", [False, True], ids=["at the limit", "at a second signal"])
async def test_what_cannot_end_is_told_and_booked(
    environment: dict[str, str], vendor: Vendor, model: str, hurry: bool
) -> None:
    limited = environment | {"SHUTDOWN_TIMEOUT_S": "300" if hurry else "1"}
    with running_server(limited) as server:
        async with asyncio.timeout(90), calling(server.url, server.token(model), vendor, model, tokens=6000) as callers:
            server.process.send_signal(signal.SIGTERM)
            assert await close_of(callers.idle) == GONE
            if hurry:
                server.process.send_signal(signal.SIGTERM)
            last, end = await callers.socket_end()
            assert (last["__typename"], last["code"], end) == ("CompletionFailed", "SERVICE_UNAVAILABLE", "complete")
            assert await close_of(callers.socket) == GONE
            last, complete = await callers.events_end()
            assert (last["__typename"], last["code"], complete) == ("CompletionFailed", "SERVICE_UNAVAILABLE", True)
            answer = await callers.mutation
            assert answer["data"]["complete"] is None
            assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
        assert await ended(server) == 0
    assert outcomes(environment, model) == [("CANCELLED", True)] * 3


async def test_a_stream_that_goes_on_without_its_reader_is_waited_for(
    environment: dict[str, str], vendor: Vendor, model: str
) -> None:
    detached = STREAM.replace("completionStream(input: $input)", "completionStream(input: $input, detached: true)")
    call = {"query": detached, "variables": {"input": asking(model, "[[tokens=100]] [[pace=20]]")}}
    with running_server(environment) as server:
        headers = {"authorization": f"Bearer {server.token(model)}", "accept": "text/event-stream"}
        async with asyncio.timeout(60):
            async with aiohttp.ClientSession(headers=headers) as session, session.post(server.url, json=call) as stream:
                while b"TextDelta" not in await stream.content.readline():
                    pass
            server.process.send_signal(signal.SIGTERM)
            assert await ended(server) == 0
    assert outcomes(environment, model) == [("SUCCEEDED", True)]


async def test_feeds_that_have_no_end_of_their_own_do_not_hold_it_up(environment: dict[str, str], model: str) -> None:
    with running_server(environment) as server:
        batch = await asyncio.to_thread(hanging_batch, server, model)
        headers = {"authorization": f"Bearer {server.token(model)}", "accept": "text/event-stream"}
        async with asyncio.timeout(60), aiohttp.ClientSession(headers=headers) as session:
            calls = [{"query": query, "variables": {"batch": batch} if "$batch" in query else {}} for query in FEEDS]
            feeds = [await session.post(server.url, json=call) for call in calls]
            for feed in feeds:
                assert (await feed.content.readline()) == b"event: next\n"
            server.process.send_signal(signal.SIGTERM)
            ends = [(await feed.read()).decode() for feed in feeds]
            assert await ended(server) == 0  # long before the limit, which is that of production
        assert all("SERVICE_UNAVAILABLE" in end and end.endswith("event: complete\ndata:\n\n") for end in ends)


def hanging_batch(server: Server, model: str) -> str:
    """Which has no end."""
    asked = {"model": f"openai/{model}", "inputs": [{"messages": [{"role": "USER", "content": "[[hang]]"}]}]}
    answer = post(server, server.token(model), SUBMIT, {"input": asked})
    found: str = answer["data"]["submitBatch"]["batch"]["id"]
    return found


async def answer_to(socket: aiohttp.ClientWebSocketResponse, operation: str) -> dict[str, Any]:
    while (message := await socket.receive_json())["id"] != operation:
        pass
    answer: dict[str, Any] = message
    return answer


def code_of(message: dict[str, Any]) -> str:
    code: str = message["payload"][0]["extensions"]["code"]
    return code
