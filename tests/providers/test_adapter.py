from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from providers.adapter import CodecProvider, retry_after
from providers.errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    UnsendableRequestError,
    error_class_for_status,
)
from providers.ports import EncodedCall, TransportResponse
from providers.sse import ServerSentEvent
from providers.types import CompletionRequest, Credentials, Message, ProviderCompletion, Role, StreamEvent, TextDelta

REQUEST = CompletionRequest("m-1", (Message(Role.USER, "hi"),))
KEY = Credentials("sk-secret")


class LetterDecoder:
    """`data: x` is the text x; `END` ends the stream, `BAD` is an error, and so is what quotes the key."""

    done = False

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if event.data == "BAD":
            raise ProviderRateLimitedError("slow down", provider="letters")
        if event.data.startswith("ERROR"):
            raise ProviderInvalidRequestError(event.data, provider="letters")
        self.done = self.done or event.data == "END"
        return () if event.data in ("END", "SILENT") else (TextDelta(event.data),)


@dataclass
class LetterCodec:
    provider: str = "letters"
    key_header: str | None = None

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        return EncodedCall("/ask", {"model": request.model, "stream": stream, **request.options}, {"x-version": "7"})

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return {"x-key": self.key_header or credentials.api_key}

    def decode(self, payload: Any) -> ProviderCompletion:
        if not isinstance(payload, dict) or "text" not in payload:
            raise ProviderBadResponseError(f"no text: {payload}", provider=self.provider)
        return ProviderCompletion(content=payload["text"])

    def decoder(self) -> LetterDecoder:
        return LetterDecoder()

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        return error_class_for_status(status)(
            f"refused: {payload}", provider=self.provider, status=status, retry_after=retry_after
        )


@dataclass
class Canned:
    """A transport with one answer."""

    status: int = 200
    body: bytes = b"{}"
    chunked: tuple[bytes, ...] = ()
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})
    sent: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)
    taken: int = 0
    closed: bool = False

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, provider: str) -> TransportResponse:
        self.sent.append((url, headers, orjson.loads(body)))
        return TransportResponse(self.status, self.headers, self.body)

    @asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], body: bytes, provider: str
    ) -> AsyncGenerator[Canned, None]:
        self.sent.append((url, headers, orjson.loads(body)))
        try:
            yield self
        finally:
            self.closed = True

    async def chunks(self) -> AsyncIterator[bytes]:
        for chunk in self.chunked:
            self.taken += 1
            yield chunk

    async def read(self) -> bytes:
        return self.body


PROVIDER = CodecProvider(LetterCodec(), "http://letters/v1/")


async def complete(transport: Canned, request: CompletionRequest = REQUEST) -> ProviderCompletion:
    return await PROVIDER.complete(request, credentials=KEY, transport=transport)


async def batches(transport: Canned) -> list[list[str]]:
    stream = PROVIDER.stream(REQUEST, credentials=KEY, transport=transport)
    return [[event.text for event in batch if isinstance(event, TextDelta)] async for batch in stream]


async def test_a_call_on_the_wire() -> None:
    transport = Canned(body=b'{"text": "hello"}')
    assert (await complete(transport)).content == "hello"
    ((url, headers, body),) = transport.sent
    assert url == "http://letters/v1/ask"
    assert headers == {
        "content-type": "application/json",
        "accept": "application/json",
        "x-version": "7",
        "x-key": "sk-secret",
    }
    assert body == {"model": "m-1", "stream": False}


async def test_the_credentials_address_goes_first() -> None:
    transport = Canned(body=b'{"text": ""}')
    elsewhere = replace(KEY, base_url="http://elsewhere")
    await PROVIDER.complete(REQUEST, credentials=elsewhere, transport=transport)
    assert transport.sent[0][0] == "http://elsewhere/ask"
    with pytest.raises(UnsendableRequestError, match="base URL") as raised:
        await CodecProvider(LetterCodec(), None).complete(REQUEST, credentials=KEY, transport=transport)
    assert not raised.value.sent


@pytest.mark.parametrize("body", [b"<html>", b"", b'{"text"', b"null", b"\xff"])
async def test_a_success_that_is_not_json(body: bytes) -> None:
    with pytest.raises(ProviderBadResponseError):
        await complete(Canned(body=body))


@pytest.mark.parametrize(("status", "kind"), [(301, ProviderBadResponseError), (429, ProviderRateLimitedError)])
async def test_a_refusal_is_the_codecs_to_judge(status: int, kind: type[ProviderError]) -> None:
    transport = Canned(status=status, body=b"<html>", headers={"retry-after": "7"})
    with pytest.raises(kind) as plain:
        await complete(transport)
    with pytest.raises(kind) as streamed:
        await batches(transport)
    for error in (plain.value, streamed.value):
        assert (error.status, error.retry_after, error.message) == (status, 7, "refused: None")
    assert transport.closed


QUOTED = b'{"error": "bad key sk-secret"}'
JSON_TYPE = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("call", "transport"),
    [
        (complete, Canned(status=401, body=QUOTED)),
        (complete, Canned(body=QUOTED)),
        (batches, Canned(status=401, body=QUOTED)),
        (batches, Canned(body=QUOTED, headers=JSON_TYPE)),
        (batches, Canned(chunked=(b"data: a\n\n", b"data: ERROR key sk-secret\n\n"))),
    ],
    ids=["refused", "an error in a success", "a stream refused", "no stream", "an error in a stream"],
)
async def test_no_error_quotes_the_key(call: Callable[[Canned], Awaitable[object]], transport: Canned) -> None:
    with pytest.raises(ProviderError) as raised:
        await call(transport)
    assert "sk-secret" not in f"{raised.value} {raised.value.message} {raised.value!r}"
    assert "key [key]" in str(raised.value)
    assert str(raised.value) == raised.value.message


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("ERROR sk-secre", "ERROR [key]"),
        ("ERROR sk-sec", "ERROR [key]"),
        ("ERROR sk-secret, sk-secr", "ERROR [key], [key]"),
        ("ERROR sk-se", "ERROR sk-se"),
        ("ERROR sk-secre is cut", "ERROR sk-secre is cut"),
        ("ERROR", "ERROR"),
    ],
)
async def test_a_key_cut_with_the_text_is_hidden_too(told: str, shown: str) -> None:
    with pytest.raises(ProviderInvalidRequestError) as raised:
        await batches(Canned(chunked=(f"data: {told}\n\n".encode(),)))
    assert raised.value.message == shown


@pytest.mark.parametrize(("key", "shown"), [("", "refused: sk-secret"), (" sk-secret ", "refused: [key]")])
async def test_the_key_is_hidden_as_the_vendor_saw_it(key: str, shown: str) -> None:
    transport = Canned(status=400, body=b'"sk-secret"')
    with pytest.raises(ProviderInvalidRequestError) as raised:
        await PROVIDER.complete(REQUEST, credentials=Credentials(key), transport=transport)
    assert raised.value.message == shown


@pytest.mark.parametrize("key", ["line\nbreak", "ключ", "nul\0"])
async def test_a_key_that_no_header_can_hold(key: str) -> None:
    provider = CodecProvider(LetterCodec(key_header=key), "http://letters")
    transport = Canned()
    with pytest.raises(ProviderAuthError) as raised:
        await provider.complete(REQUEST, credentials=KEY, transport=transport)
    assert not raised.value.sent
    assert key not in str(raised.value)
    assert not transport.sent


@pytest.mark.parametrize("options", [{"model": "dearer"}, {"stream": True}, {"stream_options": {}}])
async def test_options_can_not_change_what_is_booked(options: dict[str, Any]) -> None:
    with pytest.raises(UnsendableRequestError, match=next(iter(options))):
        await complete(Canned(), replace(REQUEST, options=options))


async def test_options_that_are_no_json_are_refused_unsent() -> None:
    transport = Canned()
    with pytest.raises(UnsendableRequestError) as raised:
        await complete(transport, replace(REQUEST, options={"x": "\ud800"}))
    assert not raised.value.sent
    assert not transport.sent


async def test_events_that_arrive_together_come_together() -> None:
    chunked = (
        b"data: a\n\ndata: b\n\nda",
        b"ta: c\n\n",
        b": ping\n\ndata: SILENT\n\n",
        b"data: d\n\ndata: END\n\n",
        b"x",
    )
    transport = Canned(chunked=chunked)
    assert await batches(transport) == [["a", "b"], ["c"], ["d"]]
    assert transport.taken == 4  # nothing is read past the end
    assert transport.closed
    assert transport.sent[0][1]["accept"] == "text/event-stream"


async def test_what_came_before_an_error_is_given_first() -> None:
    stream = PROVIDER.stream(
        REQUEST, credentials=KEY, transport=Canned(chunked=(b"data: a\n\ndata: BAD\n\ndata: b\n\n",))
    )
    assert await anext(stream) == [TextDelta("a")]
    with pytest.raises(ProviderRateLimitedError):
        await anext(stream)


async def test_a_stream_without_its_end_is_an_error() -> None:
    stream = PROVIDER.stream(REQUEST, credentials=KEY, transport=Canned(chunked=(b"data: a\n\n",)))
    assert await anext(stream) == [TextDelta("a")]
    with pytest.raises(ProviderBadResponseError, match="ended early"):
        await anext(stream)


async def test_an_endless_event_is_an_error() -> None:
    with pytest.raises(ProviderBadResponseError, match="more than"):
        await batches(Canned(chunked=(b"data: " + b"x" * (9 * 1024 * 1024),)))


@pytest.mark.parametrize(
    ("body", "message"), [(b"<html>", "not an event stream"), (b'{"text": "x"}', "not an event"), (b"{}", "no text")]
)
async def test_a_success_that_is_no_stream(body: bytes, message: str) -> None:
    with pytest.raises(ProviderBadResponseError, match=message):
        await batches(Canned(body=body, headers={"content-type": "application/json"}))


async def test_closing_the_generator_leaves_the_transports_context() -> None:
    transport = Canned(chunked=(b"data: a\n\n", b"data: b\n\n"))
    stream = PROVIDER.stream(REQUEST, credentials=KEY, transport=transport)
    await anext(stream)
    await stream.aclose()
    assert transport.closed


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "17"}, 17),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30),
        ({"retry-after": "Thursday, 01-Jan-26 12:00:30 GMT"}, 30),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 99 Jan 2026 11:00:00 GMT"}, None),
        ({"retry-after": "2", "retry-after-ms": "250"}, 0.25),
        ({"retry-after": "2", "retry-after-ms": "x"}, 2),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds
