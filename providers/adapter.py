"""A codec plus a transport makes a provider: the one that serves every vendor with a wire format."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from types import TracebackType
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from .batching import VendorBatches

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    UnsendableRequestError,
    UnsupportedFeatureError,
)
from .ports import Codec, EmbeddingCodec, EncodedCall, StreamDecoder, Transport, TransportStream
from .sse import SSEDecoder, SSELimitError
from .types import (
    CompletionRequest,
    Credentials,
    EmbeddingRequest,
    ProviderCompletion,
    ProviderEmbeddings,
    StreamEvent,
)

# Fields that options must not change behind the caller's back: the booked model, the form of the answer, its usage.
_RESERVED = frozenset({"model", "stream", "stream_options"})

_STREAM = "text/event-stream"

_MIN_KEY_PART = 6  # letters; fewer give nothing away


@dataclass(frozen=True, slots=True)
class CodecProvider:
    """Implements `ports.ModelProvider`. `base_url` serves calls whose credentials name no other. `batches`: the
    vendor's own batch API, where it has one that is known here."""

    codec: Codec
    base_url: str | None
    batches: VendorBatches | None = None

    @property
    def name(self) -> str:
        return self.codec.provider

    async def complete(
        self, request: CompletionRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderCompletion:
        """Raises ProviderError."""
        with Redaction(credentials):
            self._check_options(request.options)
            call = self.codec.encode(request, stream=False)
            return self.codec.decode(await self._answer(call, credentials, transport))

    async def embed(
        self, request: EmbeddingRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderEmbeddings:
        """Raises ProviderError, UnsupportedFeatureError where the vendor has no embeddings."""
        codec = self.codec
        if not isinstance(codec, EmbeddingCodec):
            raise UnsupportedFeatureError("embeddings", provider=self.name, model=request.model)
        with Redaction(credentials):
            self._check_options(request.options)
            answer = codec.decode_embeddings(
                await self._answer(codec.encode_embeddings(request), credentials, transport)
            )
            if len(answer.vectors) != len(request.inputs):
                raise self._bad_response(f"{len(answer.vectors)} vectors for {len(request.inputs)} inputs", 200)
            return answer

    async def stream(
        self, request: CompletionRequest, *, credentials: Credentials, transport: Transport
    ) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """Raises ProviderError; what arrived before an error is yielded first."""
        with Redaction(credentials):
            self._check_options(request.options)
            url, headers, body = self._written(self.codec.encode(request, stream=True), credentials, _STREAM)
            async with transport.stream(url, headers=headers, body=body, provider=self.name) as answer:
                if not 200 <= answer.status < 300:
                    raise self._refusal(answer.status, answer.headers, _json(await answer.read()))
                if not answer.headers.get("content-type", "").lower().startswith(_STREAM):
                    raise await self._not_a_stream(answer)
                sse, decoder = SSEDecoder(), self.codec.decoder()
                async for chunk in answer.chunks():
                    events, error = self._decode(chunk, sse, decoder)
                    if events:
                        yield events
                    if error is not None:
                        raise error
                    if decoder.done:
                        return
            raise self._bad_response("the stream ended early", answer.status)

    async def _answer(self, call: EncodedCall, credentials: Credentials, transport: Transport) -> Any:
        """The parsed JSON of a whole answer."""
        url, headers, body = self._written(call, credentials, "application/json")
        answer = await transport.post(url, headers=headers, body=body, provider=self.name)
        payload = _json(answer.body)
        if not 200 <= answer.status < 300:
            raise self._refusal(answer.status, answer.headers, payload)
        if payload is None:
            raise self._bad_response("an answer that is not JSON", answer.status)
        return payload

    def _check_options(self, options: Mapping[str, Any]) -> None:
        if taken := _RESERVED.intersection(options):
            raise self._unsendable(f"providerOptions.{self.name} may not set {', '.join(sorted(taken))}")

    def _written(self, call: EncodedCall, credentials: Credentials, accept: str) -> tuple[str, dict[str, str], bytes]:
        base_url = credentials.base_url or self.base_url
        if not base_url:
            raise self._unsendable(f"{self.name} has no base URL")
        headers = {"content-type": "application/json", "accept": accept}
        headers.update(call.headers)
        headers.update(self._authentication(credentials))
        try:
            body = orjson.dumps(call.body)
        except orjson.JSONEncodeError as error:
            raise self._unsendable(f"the request can't be written as JSON: {error}") from None
        return base_url.rstrip("/") + call.path, headers, body

    def _authentication(self, credentials: Credentials) -> Mapping[str, str]:
        headers = self.codec.headers(credentials)
        if all(value.isascii() and value.isprintable() for value in headers.values()):
            return headers
        raise ProviderAuthError("the API key holds characters that no header may hold", provider=self.name, sent=False)

    def _decode(
        self, chunk: bytes, sse: SSEDecoder, decoder: StreamDecoder
    ) -> tuple[list[StreamEvent], ProviderError | None]:
        """The events of one chunk, up to the first error in it."""
        events: list[StreamEvent] = []
        try:
            for event in sse.feed(chunk):
                events.extend(decoder.feed(event))
        except SSELimitError as error:
            return events, self._bad_response(str(error), 200)
        except ProviderError as error:
            return events, error
        return events, None

    async def _not_a_stream(self, answer: TransportStream) -> ProviderError:
        payload = _json(await answer.read())
        if payload is not None:
            try:
                self.codec.decode(payload)
            except ProviderError as error:  # some vendors answer a stream's request with 200 and an error in JSON
                return error
        return self._bad_response("an answer that is not an event stream", answer.status)

    def _refusal(self, status: int, headers: Mapping[str, str], payload: Any) -> ProviderError:
        return self.codec.error(status, payload, retry_after(headers))

    def _unsendable(self, message: str) -> UnsendableRequestError:
        return UnsendableRequestError(message, provider=self.name)

    def _bad_response(self, message: str, status: int) -> ProviderBadResponseError:
        return ProviderBadResponseError(message, provider=self.name, status=status)


class Redaction:
    """Takes the API key out of the text of any ProviderError that passes: some vendors quote the key they refuse."""

    __slots__ = ("_key",)

    def __init__(self, credentials: Credentials) -> None:
        self._key = credentials.api_key.strip()  # a header's value ends at its last letter, so a vendor quotes it so

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ProviderError) and self._key:
            error.message = _redacted(error.message, self._key)
            error.args = (error.message,)


def _redacted(text: str, key: str) -> str:
    """`text` without `key`, nor the part of it that is left where a codec cut a long text."""
    text = text.replace(key, "[key]")
    for length in range(len(key) - 1, _MIN_KEY_PART - 1, -1):
        if text.endswith(key[:length]):
            return text[:-length] + "[key]"
    return text


def _json(body: bytes) -> Any:
    """Parsed JSON; None where the body is something else."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds the vendor asks to wait, never negative; None where it says nothing that can be read.

    `Retry-After` is seconds or an HTTP date (RFC 9110, 10.2.3); `retry-after-ms` is OpenAI's finer form
    (https://github.com/openai/openai-python).
    """
    if (milliseconds := _seconds(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    if (value := headers.get("retry-after")) is None:
        return None
    if (seconds := _seconds(value)) is not None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None
