"""What a codec, a transport and a provider are. Protocols only: no client library is reachable from here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from .errors import ProviderError
from .sse import ServerSentEvent
from .types import (
    CompletionRequest,
    Credentials,
    EmbeddingRequest,
    ProviderCompletion,
    ProviderEmbeddings,
    StreamEvent,
)


@dataclass(frozen=True, slots=True)
class EncodedCall:
    """A request on the vendor's wire: `path` is joined to the base URL, `body` becomes JSON."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


class StreamDecoder(Protocol):
    """Turns one stream's server-sent events into neutral events. Holds that one stream's state; no sockets."""

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """Decode one event. Raises ProviderError for an error event, ProviderBadResponseError for malformed data."""
        ...

    @property
    def done(self) -> bool:
        """True once the vendor has said that the stream is whole. A body that ends before was cut off."""
        ...


class Codec(Protocol):
    """A vendor's wire format, without I/O."""

    @property
    def provider(self) -> str: ...

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """Raises UnsendableRequestError for what can't be put in the vendor's words, UnsupportedFeatureError for what
        it can't do; nothing is dropped in silence."""
        ...

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        """The headers that authenticate a call."""
        ...

    def decode(self, payload: Any) -> ProviderCompletion:
        """Decode a plain answer (parsed JSON). Raises ProviderBadResponseError, or the error a 200 body carries."""
        ...

    def decoder(self) -> StreamDecoder:
        """A fresh decoder for one stream."""
        ...

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        """The error that a non-2xx answer means. `payload` is parsed JSON, or None where the body is not JSON."""
        ...


@runtime_checkable
class EmbeddingCodec(Protocol):
    """What a codec has beside `Codec` where its vendor turns texts into vectors."""

    def encode_embeddings(self, request: EmbeddingRequest) -> EncodedCall:
        """Raises UnsendableRequestError."""
        ...

    def decode_embeddings(self, payload: Any) -> ProviderEmbeddings:
        """Decode an answer (parsed JSON). Raises ProviderBadResponseError, or the error a 200 body carries."""
        ...


@dataclass(frozen=True, slots=True)
class TransportResponse:
    """A whole HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TransportStream(Protocol):
    """An HTTP answer whose body is still arriving."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncIterator[bytes]: ...

    async def read(self) -> bytes:
        """The rest of the body, bounded like a plain answer's."""
        ...


@dataclass(slots=True)
class Dispatch:
    """Where a call is: `waiting` while it has no connection, so that no vendor can have seen any of it."""

    waiting: bool = False


current_dispatch: ContextVar[Dispatch | None] = ContextVar("current_dispatch", default=None)
"""Set by who makes a call and must know, when it is cut short, whether it had gone out. Kept up by the transport."""


class Transport(Protocol):
    """HTTP to a vendor. Raises ProviderTimeoutError or ProviderUnavailableError (`provider` names the vendor)."""

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, provider: str) -> TransportResponse: ...

    def stream(
        self, url: str, *, headers: Mapping[str, str], body: bytes | None, provider: str
    ) -> AbstractAsyncContextManager[TransportStream]:
        """Without a body, to a GET. Leaving the context closes the upstream connection."""
        ...


class ModelProvider(Protocol):
    """One vendor, ready to be called. Credentials and transport are arguments of the call."""

    @property
    def name(self) -> str: ...

    async def complete(
        self, request: CompletionRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderCompletion: ...

    def stream(
        self, request: CompletionRequest, *, credentials: Credentials, transport: Transport
    ) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """Yields the events of each chunk that arrived together; never an empty batch. `aclose()` hangs up."""
        ...

    async def embed(
        self, request: EmbeddingRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderEmbeddings:
        """Raises UnsupportedFeatureError where the vendor has no embeddings."""
        ...
