"""A client of the GraphQL API, for the command line: one answer, or a completion as it is written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import orjson

from providers.http import open_transport
from providers.ports import TransportStream
from providers.sse import SSEDecoder, SSELimitError

from .settings import SettingsError

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
_EXPORT = "mutation Export($input: UsageInput!) { exportUsage(input: $input) { url } }"


class ApiError(Exception):
    """No answer, and why: the API's code and message, or what the one who asked can mend."""


async def ask(url: str, token: str, field: str, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object at the root field `field`. Raises ApiError, SettingsError for a proxy variable that can't be used, or
    ProviderError where the server can't be reached (`sent` is false) or its answer has no end."""
    async with _asked(url, token, query, variables, accept="application/json") as answer:
        return _field(field, await answer.read())


async def complete(url: str, token: str, completion: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer's fields. Raises as `ask` does."""
    return await ask(url, token, "complete", _COMPLETE, {"input": completion})


def stream(url: str, token: str, completion: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
    """The events of the stream. Raises as `ask` does."""
    return events(url, token, "completionStream", _STREAM, {"input": completion})


async def events(
    url: str, token: str, field: str, query: str, variables: Mapping[str, Any]
) -> AsyncGenerator[Mapping[str, Any], None]:
    """The objects at the root field `field` of a subscription, until its end. Raises as `ask` does."""
    async with _asked(url, token, query, variables, accept="text/event-stream") as answer:
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            _field(field, await answer.read())
            raise ValueError("one answer where a stream was asked for")
        decoder = SSEDecoder()
        async for chunk in answer.chunks():
            for event in decoder.feed(chunk):
                if event.event == "complete":
                    return
                if event.event == "next":
                    yield _field(field, event.data)
    raise ApiError(f"{url} ended its stream before the answer was whole")


async def put(url: str, content: bytes) -> None:
    """Brings a file to a signed link. Raises as `ask` does."""
    headers = {"content-type": "application/octet-stream"}
    async with _answered(url, headers, content, method="PUT") as answer:
        if not 200 <= answer.status < 300:
            raise ApiError(f"the file was not taken (HTTP {answer.status})")


@asynccontextmanager
async def file(url: str) -> AsyncIterator[AsyncIterator[bytes]]:
    """What a signed link opens, as it arrives. Raises as `ask` does."""
    async with _answered(url, {}, None) as answer:
        if answer.status != 200:
            raise ApiError(f"the file was not given (HTTP {answer.status})")
        yield answer.chunks()


@asynccontextmanager
async def usage_csv(url: str, token: str, asked: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
    """A usage report as CSV, as it arrives: asks for a link, and follows it. Raises as `ask` does."""
    link = await ask(url, token, "exportUsage", _EXPORT, {"input": asked})
    async with _answered(urljoin(url, link["url"]), {}, None) as answer:
        match answer.status, answer.headers.get("content-type", "").partition(";")[0]:
            case 200, "text/csv":
                yield answer.chunks()
            case _, "text/plain":
                raise ApiError((await answer.read()).decode().strip())
            case _:
                raise ValueError("neither CSV nor a reason")


@asynccontextmanager
async def _asked(
    url: str, token: str, query: str, variables: Mapping[str, Any], *, accept: str
) -> AsyncIterator[TransportStream]:
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json", "accept": accept}
    try:
        body = orjson.dumps({"query": query, "variables": variables})
    except orjson.JSONEncodeError:  # half a character, from an argument in another encoding
        raise ApiError("what you ask is not text in UTF-8") from None
    async with _answered(url, headers, body) as answer:
        yield answer


@asynccontextmanager
async def _answered(
    url: str, headers: Mapping[str, str], body: bytes | None, method: str | None = None
) -> AsyncIterator[TransportStream]:
    """The answer as it arrives. A ValueError inside means that it is none of this API's, and leaves as ApiError."""
    address = url.partition("?")[0]  # behind that may be a signature
    async with AsyncExitStack() as stack:
        try:
            transport = await stack.enter_async_context(open_transport(max_connections=1))
        except ValueError as error:  # the proxy variables of the environment
            raise SettingsError(str(error)) from None
        try:
            answer = await stack.enter_async_context(
                transport.stream(url, headers=headers, body=body, provider="ai-middleware", method=method)
            )
        except ValueError:  # a host that no name can have
            raise ApiError(f"{address} is not an address: check --url") from None
        try:
            yield answer
        except (ValueError, SSELimitError):
            raise ApiError(
                f"{address} answered (HTTP {answer.status}), but not as this API does: check --url, or PORT without it"
            ) from None


def _field(name: str, body: bytes | str) -> Mapping[str, Any]:
    """The field of an answer. Raises ApiError for the API's errors, ValueError for what is no answer of this API."""
    match orjson.loads(body):
        case {"errors": [{"message": str(message), "extensions": {"code": str(code), "path": [_, *path]}}, *_]} if path:
            raise ApiError(f"{code}: {message} ({'.'.join(map(str, path))})")
        case {"errors": [{"message": str(message), "extensions": {"code": str(code)}}, *_]}:
            raise ApiError(f"{code}: {message}")
        case {"errors": [{"message": str(message)}, *_]}:
            raise ApiError(message)
        case {"data": dict(data)} if isinstance(field := data.get(name), dict):
            return field
    raise ValueError("neither errors nor data")
