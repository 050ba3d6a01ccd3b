"""A vendor's own batch API: many requests handed over at once, worked on within a day, at a price of its own.

A `BatchCodec` is the wire, without I/O; `VendorBatches` makes the calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import orjson

from .adapter import Redaction, retry_after
from .errors import ProviderBadResponseError, ProviderError
from .ports import Transport
from .types import CompletionRequest, Credentials, ProviderCompletion

MOST_PAGES = 100
"""Of a vendor's list, for one search."""


@dataclass(frozen=True, slots=True)
class BatchCall:
    """A request on the vendor's wire: without a body, a GET."""

    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request, as the vendor has it: JSON. All of a batch are of one `kind`."""

    custom_id: str
    kind: str
    content: bytes


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """`failure`: why none of it was done. `results`: where the results are, once it has ended."""

    id: str
    ended: bool
    failure: str | None = None
    results: tuple[BatchCall, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one request: an answer, or an error; neither where the vendor did not come to it."""

    custom_id: str
    answer: ProviderCompletion | None = None
    error: ProviderError | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What a vendor may have as a batch, its answer being lost: under our `name`, of so many `lines`, created between
    these aware times."""

    name: str
    lines: int
    since: datetime
    until: datetime


class BatchCodec(Protocol):
    """`most_lines` and `most_bytes`: of one batch. `keeps_names`: the vendor does, so that one is found for sure."""

    @property
    def provider(self) -> str: ...
    @property
    def most_lines(self) -> int: ...
    @property
    def most_bytes(self) -> int: ...
    @property
    def keeps_names(self) -> bool: ...

    def headers(self, credentials: Credentials) -> Mapping[str, str]: ...

    def line(self, custom_id: str, request: CompletionRequest) -> BatchLine:
        """Raises ProviderError for what can't be sent."""
        ...

    def upload(self, lines: Sequence[BatchLine]) -> BatchCall | None:
        """What has to go before; None where nothing has to."""
        ...

    def create(self, lines: Sequence[BatchLine], uploaded: Any, name: str) -> BatchCall:
        """`uploaded`: the answer to `upload`. `name` is ours, where the vendor keeps one."""
        ...

    def status(self, payload: Any) -> BatchStatus:
        """Raises ProviderBadResponseError."""
        ...

    def look(self, batch_id: str) -> BatchCall: ...

    def cancel(self, batch_id: str) -> BatchCall: ...

    def find(self, after: str | None) -> BatchCall:
        """A page of its batches, the newest first; `after` that one."""
        ...

    def found(self, payload: Any, sent: Sent) -> Sequence[BatchStatus]:
        """Those among them that may be what was sent. Raises ProviderBadResponseError."""
        ...

    def oldest(self, payload: Any, sent: Sent) -> str | None:
        """Behind which others may be that; None where there are none, or they were created before. Raises
        ProviderBadResponseError."""
        ...

    def result(self, line: Any) -> BatchResult:
        """Raises ProviderBadResponseError."""
        ...

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError: ...


@runtime_checkable
class BatchProvider(Protocol):
    """What a provider has beside `ModelProvider` where its vendor may have a batch API."""

    @property
    def batches(self) -> VendorBatches | None: ...


@dataclass(frozen=True, slots=True)
class VendorBatches:
    """One vendor's batches, ready to be asked for. Every method raises ProviderError."""

    codec: BatchCodec
    base_url: str | None

    def line(self, custom_id: str, request: CompletionRequest) -> BatchLine:
        return self.codec.line(custom_id, request)

    async def submit(
        self, lines: Sequence[BatchLine], name: str, *, credentials: Credentials, transport: Transport
    ) -> BatchStatus:
        upload = self.codec.upload(lines)
        uploaded = None if upload is None else await self._answer(upload, credentials, transport)
        created = self.codec.create(lines, uploaded, name)
        return self.codec.status(await self._answer(created, credentials, transport))

    async def look(self, batch_id: str, *, credentials: Credentials, transport: Transport) -> BatchStatus:
        return self.codec.status(await self._answer(self.codec.look(batch_id), credentials, transport))

    async def cancel(self, batch_id: str, *, credentials: Credentials, transport: Transport) -> None:
        await self._answer(self.codec.cancel(batch_id), credentials, transport)

    async def find(self, sent: Sent, *, credentials: Credentials, transport: Transport) -> Sequence[BatchStatus]:
        """Those that may be it: the one, where the vendor keeps names."""
        found: list[BatchStatus] = []
        after: str | None = None
        for _ in range(MOST_PAGES):
            payload = await self._answer(self.codec.find(after), credentials, transport)
            found += self.codec.found(payload, sent)
            after = self.codec.oldest(payload, sent)
            if after is None or (found and self.codec.keeps_names):
                break
        return found

    async def results(
        self, status: BatchStatus, *, credentials: Credentials, transport: Transport
    ) -> AsyncGenerator[BatchResult, None]:
        """In whatever order the vendor has them, as they arrive."""
        for call in status.results:
            url, headers = self._addressed(call, credentials)
            with Redaction(credentials):
                async with transport.stream(url, headers=headers, body=None, provider=self.codec.provider) as answer:
                    if not 200 <= answer.status < 300:
                        raise self._refusal(answer.status, answer.headers, await answer.read())
                    rest = b""
                    async for chunk in answer.chunks():
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            if line.strip():
                                yield self.codec.result(self._json(line))
                    if rest.strip():
                        yield self.codec.result(self._json(rest))

    async def _answer(self, call: BatchCall, credentials: Credentials, transport: Transport) -> Any:
        url, headers = self._addressed(call, credentials)
        with Redaction(credentials):
            async with transport.stream(url, headers=headers, body=call.body, provider=self.codec.provider) as answer:
                body = await answer.read()
                if not 200 <= answer.status < 300:
                    raise self._refusal(answer.status, answer.headers, body)
                return self._json(body)

    def _addressed(self, call: BatchCall, credentials: Credentials) -> tuple[str, dict[str, str]]:
        base_url = (credentials.base_url or self.base_url or "").rstrip("/")
        json = {"content-type": "application/json"} if call.body is not None else {}
        return base_url + call.path, {**json, **call.headers, **self.codec.headers(credentials)}

    def _json(self, body: bytes) -> Any:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise ProviderBadResponseError(
                "an answer that is not JSON", provider=self.codec.provider, status=200
            ) from None

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            payload = None
        return self.codec.error(status, payload, retry_after(headers))


def listed(payload: Any, provider: str) -> Sequence[Mapping[str, Any]]:
    """The objects of a list, as vendors have it. Raises ProviderBadResponseError."""
    found = payload.get("data") if isinstance(payload, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ProviderBadResponseError("a list that is none", provider=provider, status=200)
    return found
