"""The clients: completions many at once, and streams that are read token by token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

COMPLETE = """
mutation($input: CompleteInput!) {
  complete(input: $input) {
    id content finishReason model provider latencyMs
    usage { inputTokens outputTokens cost costSource estimated }
    attempts { provider outcome }
  }
}
"""
STREAM = """
subscription($input: CompleteInput!) {
  completionStream(input: $input) {
    __typename completionId sequence
    ... on TextDelta { text }
    ... on CompletionFinished { completion { finishReason usage { outputTokens cost } } }
    ... on CompletionFailed { code message }
  }
}
"""
MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class Target:
    """One of the two servers. `headers` authenticate; `url` takes the POST."""

    url: str
    headers: dict[str, str]
    graphql: bool


def _body(target: Target, prompt: str, *, stream: bool) -> bytes:
    if not target.graphql:
        message = {"role": "user", "content": prompt}
        options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return orjson.dumps({"model": MODEL, "messages": [message], **options})
    asked = {"model": f"openai/{MODEL}", "messages": [{"role": "USER", "content": prompt}]}
    return orjson.dumps({"query": STREAM if stream else COMPLETE, "variables": {"input": asked}})


async def completions(target: Target, count: int, at_once: int) -> float:
    """Seconds that `count` completions took, `at_once` at any time. Raises AssertionError for a wrong answer."""
    body = _body(target, "Say hello. [[tokens=30]]", stream=False)
    async with aiohttp.ClientSession(headers=target.headers) as session:

        async def one() -> None:
            async with session.post(target.url, data=body) as answer:
                content = await answer.read()
                assert answer.status == 200, content
                assert b'"errors"' not in content, content

        return await _spread(one, count, at_once)


async def sse_tokens(target: Target, streams: int, tokens: int, pace_ms: int) -> float:
    """Seconds for `streams` streams at once of `tokens` tokens each, over server-sent events."""
    body = _body(target, f"Tell me. [[tokens={tokens}]] [[pace={pace_ms}]]", stream=True)
    headers = {**target.headers, "accept": "text/event-stream"}
    connector = aiohttp.TCPConnector(limit=streams)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:

        async def one() -> None:
            seen = 0
            async with session.post(target.url, data=body) as answer:
                assert answer.status == 200, await answer.read()
                async for line in answer.content:
                    seen += line.startswith(b"data: {")
            assert seen >= tokens * 0.9, seen

        return await _spread(one, streams, streams)


async def websocket_tokens(target: Target, streams: int, tokens: int, pace_ms: int) -> float:
    """The same over WebSocket, a socket for each stream."""
    call = orjson.loads(_body(target, f"Tell me. [[tokens={tokens}]] [[pace={pace_ms}]]", stream=True))
    opening = {"type": "connection_init", "payload": {"Authorization": target.headers["authorization"]}}
    connector = aiohttp.TCPConnector(limit=streams)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def one() -> None:
            seen = 0
            async with session.ws_connect(target.url, protocols=["graphql-transport-ws"]) as socket:
                await socket.send_json(opening)
                await socket.receive_json()
                await socket.send_json({"id": "1", "type": "subscribe", "payload": call})
                async for message in socket:
                    kind = orjson.loads(message.data)["type"]
                    assert kind in ("next", "complete"), message.data
                    if kind == "complete":
                        break
                    seen += 1
            assert seen >= tokens * 0.9, seen

        return await _spread(one, streams, streams)


async def _spread(one: Callable[[], Awaitable[None]], count: int, at_once: int) -> float:
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await one()

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())
    return time.perf_counter() - started
