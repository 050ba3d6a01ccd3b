"""Live usage through the real server, over both transports of subscriptions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx
from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport

from .documents import COMPLETE
from .processes import Server, post, running_server, server_environment

LIVE = """
subscription Live($input: UsageLiveInput!) {
  usageLive(input: $input) {
    asOf since until totals { completions cost outputTokens }
    buckets { start totals { completions } }
    groups { dimensions { value } totals { completions } }
  }
}
"""
ASKED = {"last": 5, "bucket": "MINUTE", "groupBy": [{"field": "MODEL"}], "intervalMs": 1000}
HELLO = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "Hello."}]}


def client(server: Server, token: str) -> Client:
    return Client(
        transport=WebsocketsTransport(url=server.socket_url, init_payload={"Authorization": f"Bearer {token}"})
    )


def ticks(session: Any, **changes: Any) -> AsyncGenerator[dict[str, Any], None]:
    results: AsyncGenerator[dict[str, Any], None] = session.subscribe(
        GraphQLRequest(LIVE, variable_values={"input": ASKED | changes})
    )
    return results


async def tick(results: AsyncGenerator[dict[str, Any], None]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (await anext(results))["usageLive"]
    return found


async def test_a_completion_is_seen_by_all_at_once(server: Server, token: str) -> None:
    async with asyncio.timeout(30), client(server, token) as one, client(server, token) as two:
        of_one, of_two = ticks(one), ticks(two)
        first = await tick(of_one)
        assert first["totals"]["completions"] == 0
        assert first["groups"] == []
        assert len(first["buckets"]) == 5
        await tick(of_two)
        answer = await asyncio.to_thread(post, server, token, COMPLETE, {"input": HELLO})
        assert "errors" not in answer
        seen = await tick(of_one)
        while seen["totals"]["completions"] == 0:  # a minute may have gone by meanwhile
            seen = await tick(of_one)
        assert seen["totals"]["completions"] == sum(each["totals"]["completions"] for each in seen["buckets"]) == 1
        assert seen["totals"]["outputTokens"] == answer["data"]["complete"]["usage"]["outputTokens"]
        assert [each["dimensions"] for each in seen["groups"]] == [[{"value": "echo"}]]
        also_seen = await tick(of_two)
        while also_seen["totals"]["completions"] == 0:
            also_seen = await tick(of_two)
        assert also_seen == seen, "one look at the ledger, for its moment is the same"
        await of_one.aclose()
        await of_two.aclose()


async def test_server_sent_events(server: Server, token: str) -> None:
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
    body = {"query": LIVE, "variables": {"input": ASKED}}
    async with (
        asyncio.timeout(30),
        httpx.AsyncClient(headers=headers) as session,
        session.stream("POST", server.url, json=body) as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == "event: next"
        assert '"usageLive":{"asOf":' in await anext(lines)


async def test_a_server_that_stops_does_not_wait_for_those_who_watch(tmp_path: Path) -> None:
    with running_server(server_environment(tmp_path, None)) as server:
        async with asyncio.timeout(60), client(server, server.token("watching")) as session:
            results = ticks(session)
            await tick(results)
            started = time.monotonic()
            server.process.terminate()
            await asyncio.to_thread(server.process.wait, 40)
            assert time.monotonic() - started < 10
            await results.aclose()
    assert "Traceback" not in server.log()
