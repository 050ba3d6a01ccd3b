"""The command line's client, against whatever may answer at an address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway import client
from gateway.settings import SettingsError
from providers.errors import ProviderError

JSON = "application/json"
EVENTS = "text/event-stream"
EVENT = 'event: next\ndata: {"data": {"completionStream": {"__typename": "TextDelta", "text": "Hi"}}}\n\n'
END = "event: complete\ndata:\n\n"


@asynccontextmanager
async def answering(body: str, *, status: int = 200, kind: str = JSON, missing: int = 0) -> AsyncIterator[str]:
    """A server that gives this answer to everyone, and hangs up `missing` bytes before its end; its address."""
    whole = body.encode()
    head = f"HTTP/1.1 {status} Any\r\ncontent-type: {kind}\r\ncontent-length: {len(whole) + missing}\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        *_, length = (await reader.readuntil(b"\r\n\r\n")).lower().partition(b"content-length:")
        await reader.readexactly(int(length.split()[0]))
        writer.write(head.encode() + whole)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/graphql"


async def plain(url: str) -> Mapping[str, Any]:
    return await client.complete(url, "a.b.c", {"model": "scripted/echo"})


async def streamed(url: str) -> list[Mapping[str, Any]]:
    return [event async for event in client.stream(url, "a.b.c", {"model": "scripted/echo"})]


STRANGE = {
    "not JSON": "<html>",
    "empty": "",
    "a list": "[]",
    "null": "null",
    "a number": "7",
    "nothing of ours": '{"detail": "Not Found"}',
    "no data": '{"data": null}',
    "no field": '{"data": {}}',
    "an empty field": '{"data": {"complete": null, "completionStream": null}}',
    "errors that are none": '{"errors": "all wrong"}',
    "errors of text": '{"errors": ["wrong"]}',
    "errors without message": '{"errors": [{}]}',
}


@pytest.mark.parametrize("ask", [plain, streamed])
@pytest.mark.parametrize("case", STRANGE)
async def test_what_is_no_answer_of_the_api_names_the_address(case: str, ask: Any) -> None:
    async with answering(STRANGE[case], status=404) as url:
        with pytest.raises(client.ApiError) as caught:
            await ask(url)
    assert str(caught.value).startswith(f"{url} answered (HTTP 404), but not as this API does: check --url")


@pytest.mark.parametrize("ask", [plain, streamed])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            '{"errors": [{"message": "no token", "extensions": {"code": "UNAUTHENTICATED"}}]}',
            "UNAUTHENTICATED: no token",
        ),
        ('{"errors": [{"message": "wrong"}], "data": null}', "wrong"),
        ('{"errors": [{"message": "wrong", "extensions": null}]}', "wrong"),
    ],
)
async def test_an_error_of_the_api_is_its_own_words(body: str, message: str, ask: Any) -> None:
    async with answering(body, status=401) as url:
        with pytest.raises(client.ApiError) as caught:
            await ask(url)
    assert str(caught.value) == message


async def test_one_answer_is_no_stream() -> None:
    async with answering('{"data": {"completionStream": {"__typename": "TextDelta"}}}') as url:
        with pytest.raises(client.ApiError, match="not as this API does"):
            await streamed(url)


@pytest.mark.parametrize("data", ["{", "[]", '{"data": null}', "x" * (9 * 1024 * 1024)])
async def test_a_stream_of_something_else_is_no_answer_of_the_api(data: str) -> None:
    async with answering(f"{EVENT}event: next\ndata: {data}\n\n", kind=EVENTS) as url:
        with pytest.raises(client.ApiError, match="not as this API does"):
            await streamed(url)


async def test_a_stream_with_its_end_is_whole() -> None:
    async with answering(EVENT + END, kind=EVENTS) as url:
        assert await streamed(url) == [{"__typename": "TextDelta", "text": "Hi"}]


async def test_a_stream_without_its_end_is_not() -> None:
    async with answering(EVENT, kind=EVENTS) as url:
        with pytest.raises(client.ApiError, match="before the answer was whole"):
            await streamed(url)


@pytest.mark.parametrize("ask", [plain, streamed])
async def test_a_connection_that_breaks_is_not_a_server_that_is_absent(ask: Any) -> None:
    async with answering(EVENT, kind=EVENTS, missing=1) as url:
        with pytest.raises(ProviderError) as caught:
            await ask(url)
    assert caught.value.sent
    with pytest.raises(ProviderError) as caught:
        await ask(url)
    assert not caught.value.sent


@pytest.mark.parametrize("host", ["a..b", "x" * 64, "xn--"])
async def test_a_host_that_no_name_can_have(host: str) -> None:
    with pytest.raises(client.ApiError, match="check --url"):
        await plain(f"http://{host}/graphql")


async def test_half_a_character_is_not_sent() -> None:
    with pytest.raises(client.ApiError, match="UTF-8"):
        await client.complete("http://127.0.0.1:9/graphql", "a.b.c", {"model": "\udcff"})


async def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@proxy")
    with pytest.raises(SettingsError, match=r"^ALL_PROXY[^\n]+$") as caught:
        await plain("http://127.0.0.1:9/graphql")
    assert "secret" not in str(caught.value)
