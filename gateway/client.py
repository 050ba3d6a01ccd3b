"""A client of the GraphQL API, for the command line: one completion, whole or as it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from providers.http import open_transport
from providers.sse import SSEDecoder

_COMPLETE = """
mutation Complete($input: CompleteInput!) {
  complete(input: $input) { content provider model usage { inputTokens outputTokens cost } latencyMs }
}
"""
_STREAM = """
subscription Stream($input: CompleteInput!) {
  completionStream(input: $input) {
    __typename
    ... on TextDelta { text }
    ... on ProviderSwitched { provider model errorCode }
    ... on CompletionFailed { code message }
    ... on CompletionFinished {
      completion { provider model usage { inputTokens outputTokens cost } latencyMs }
    }
  }
}
"""


class ApiError(Exception):
    """The API answered with an error; the text is its code and message."""


async def complete(url: str, token: str, completion: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer's fields. Raises ApiError, or ProviderError where the server can't be reached."""
    async with open_transport(max_connections=1) as transport:
        answer = await transport.post(
            url, headers=_headers(token), body=_body(_COMPLETE, completion), provider="ai-middleware"
        )
    completed: Mapping[str, Any] = _data(answer.body)["complete"]
    return completed


async def stream(url: str, token: str, completion: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
    """The events of the stream. Raises as `complete` does."""
    headers = {**_headers(token), "accept": "text/event-stream"}
    async with (
        open_transport(max_connections=1) as transport,
        transport.stream(url, headers=headers, body=_body(_STREAM, completion), provider="ai-middleware") as answer,
    ):
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            _data(await answer.read())
            raise ApiError(f"HTTP {answer.status} where a stream was expected")
        decoder = SSEDecoder()
        async for chunk in answer.chunks():
            for event in decoder.feed(chunk):
                if event.event == "next":
                    yield _data(event.data)["completionStream"]


def _headers(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "content-type": "application/json"}


def _body(query: str, completion: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"query": query, "variables": {"input": completion}})


def _data(body: bytes | str) -> Mapping[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ApiError("the answer is not JSON: is that the address of /graphql?") from None
    if errors := answer.get("errors"):
        first = errors[0]
        code = first.get("extensions", {}).get("code", "ERROR")
        raise ApiError(f"{code}: {first['message']}")
    data: Mapping[str, Any] = answer["data"]
    return data
