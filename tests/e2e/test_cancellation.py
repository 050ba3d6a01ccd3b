"""A client that leaves, or cancels: the vendor's connection closes within a second, and what was produced is booked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import pytest
from gql import Client, GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.websockets import WebsocketsTransport

from resolvers.principal import Scope

from .documents import CANCEL, COMPLETE, RECORD, RECORDS, STREAM
from .processes import PROVIDERS, Server, Vendor, post
from .test_providers import asked

LEAVES_WITHIN_S = 1.0


async def until(condition: Callable[[], Any], *, within_s: float = 30.0) -> Any:
    """What `condition` gives once it is true: for what another process does, which sends no signal."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
    return value


def own_model(provider: str, organisation: str) -> str:
    """A model name of this test alone, so that the vendor's tally is too."""
    return f"{provider}/{organisation}"


def open_calls(vendor: Vendor, provider: str, model: str) -> int:
    return vendor.tally(provider, model).get("open", 0)


async def closed_in(vendor: Vendor, provider: str, model: str) -> float:
    """Seconds until the vendor has no open call of this model."""
    started = time.monotonic()
    await until(lambda: open_calls(vendor, provider, model) == 0)
    return time.monotonic() - started


def the_record(server: Server, token: str) -> dict[str, Any] | None:
    nodes = post(server, token, RECORDS)["data"]["completions"]["nodes"]
    return nodes[0] if nodes else None


async def test_mutation_over_http(server: Server, vendor: Vendor, token: str, organisation: str) -> None:
    body = {
        "query": COMPLETE,
        "variables": {"input": {**asked("openai", "[[hang=0]]"), "model": own_model("openai", organisation)}},
    }
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as session:
        call = asyncio.create_task(session.post(server.url, json=body))
        await until(lambda: open_calls(vendor, "openai", organisation))
        call.cancel()
        await asyncio.wait([call])
    assert await closed_in(vendor, "openai", organisation) < LEAVES_WITHIN_S
    record = await until(lambda: the_record(server, token))
    assert record["outcome"] == "CANCELLED"
    assert record["usage"]["estimated"]
    assert record["usage"]["inputTokens"] > 0


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_websocket(server: Server, vendor: Vendor, token: str, organisation: str, provider: str) -> None:
    completion = {**asked(provider, "[[tokens=500]] [[pace=10]]"), "model": own_model(provider, organisation)}
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"])
        await socket.send_json({"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}})
        await socket.receive_json()
        call = {"query": STREAM, "variables": {"input": completion}}
        await socket.send_json({"id": "1", "type": "subscribe", "payload": call})
        received = [(await socket.receive_json())["payload"]["data"]["completionStream"] for _ in range(6)]
        await socket.send_json({"id": "1", "type": "complete"})
        assert await closed_in(vendor, provider, organisation) < LEAVES_WITHIN_S
        await socket.close()
    record = await until(lambda: the_record(server, token))
    seen = sum(len(event.get("text", "")) for event in received)
    assert record["outcome"] == "CANCELLED"
    assert record["usage"]["outputTokens"] >= seen // 4


async def test_server_sent_events(server: Server, vendor: Vendor, token: str, organisation: str) -> None:
    completion = {**asked("openai", "[[tokens=500]] [[pace=10]]"), "model": own_model("openai", organisation)}
    async with (
        httpx.AsyncClient(timeout=10) as client,
        client.stream(
            "POST",
            server.url,
            json={"query": STREAM, "variables": {"input": completion}},
            headers={"authorization": f"Bearer {token}", "accept": "text/event-stream"},
        ) as answer,
    ):
        async for line in answer.aiter_lines():
            if "TextDelta" in line:
                break
    assert await closed_in(vendor, "openai", organisation) < LEAVES_WITHIN_S
    assert (await until(lambda: the_record(server, token)))["outcome"] == "CANCELLED"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_cancel_completion_ends_a_stream_with_what_was_produced(
    server: Server, vendor: Vendor, token: str, organisation: str, provider: str
) -> None:
    completion = {**asked(provider, "[[tokens=500]] [[pace=10]]"), "model": own_model(provider, organisation)}
    events: list[dict[str, Any]] = []
    sockets = WebsocketsTransport(url=server.socket_url, init_payload={"Authorization": f"Bearer {token}"})
    requests = AIOHTTPTransport(url=server.url, headers={"authorization": f"Bearer {token}"})
    async with Client(transport=sockets) as streaming, Client(transport=requests) as asking:
        subscription = GraphQLRequest(STREAM, variable_values={"input": completion})
        async for answer in streaming.subscribe(subscription):
            event = answer["completionStream"]
            events.append(event)
            if event["__typename"] == "TextDelta" and events[-2]["__typename"] != "TextDelta":
                by = {"id": event["completionId"]}
                cancelled = await asking.execute(GraphQLRequest(CANCEL, variable_values={"by": by}))
                assert cancelled["cancelCompletion"] == {"completionId": event["completionId"], "cancelled": True}
        assert events[-1]["__typename"] == "CompletionFinished"
        assert events[-1]["completion"]["finishReason"] == "CANCELLED"
        assert events[-1]["completion"]["content"] == "".join(event.get("text", "") for event in events)
        assert await closed_in(vendor, provider, organisation) < LEAVES_WITHIN_S
        found = await asking.execute(GraphQLRequest(RECORD, variable_values={"by": by}))
    assert found["completion"]["outcome"] == "CANCELLED"
    assert found["completion"]["usage"]["estimated"]


async def test_cancel_by_idempotency_key_and_not_by_a_stranger(
    server: Server, vendor: Vendor, token: str, organisation: str
) -> None:
    completion = {
        **asked("openai", "[[hang=0]]", idempotencyKey="order-7"),
        "model": own_model("openai", organisation),
    }
    waiting = asyncio.create_task(asyncio.to_thread(post, server, token, COMPLETE, {"input": completion}))
    await until(lambda: open_calls(vendor, "openai", organisation))
    by = {"by": {"idempotencyKey": "order-7"}}
    stranger = server.token(f"{organisation}-other")
    refused = await asyncio.to_thread(post, server, stranger, CANCEL, by)
    assert refused["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    again = await asyncio.to_thread(post, server, token, COMPLETE, {"input": completion})
    assert again["errors"][0]["extensions"]["code"] == "CONFLICT"
    await asyncio.to_thread(post, server, token, CANCEL, by)
    answer = (await waiting)["data"]["complete"]
    assert (answer["finishReason"], answer["content"]) == ("CANCELLED", None)
    late = await asyncio.to_thread(post, server, token, CANCEL, by)
    assert late["data"]["cancelCompletion"] == {"completionId": answer["id"], "cancelled": False}


def test_a_token_without_the_scope_is_refused(server: Server, organisation: str) -> None:
    reader = server.token(organisation, scopes=[Scope.COMPLETIONS_READ])
    answer = post(server, reader, COMPLETE, {"input": asked("openai", "Hello.")})
    assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
