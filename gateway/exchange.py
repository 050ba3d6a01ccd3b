"""One HTTP exchange at the edge, whatever answers it: request id, bounded body, a client that leaves, the answer."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from types import TracebackType
from typing import Any

import orjson
from uuid_utils import uuid7

from resolvers.errors import DomainError

Message = MutableMapping[str, Any]
ASGIScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

Headers = dict[bytes, bytes]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_SINGLE = frozenset({b"authorization", b"content-encoding", b"content-length", b"content-type", b"host", b"origin"})
"""Given twice, a proxy in front may go by one of them and this server by the other."""


class RequestError(DomainError):
    """A request that is not a GraphQL request. `status` is the HTTP status that says so."""

    code = "BAD_USER_INPUT"

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ClientLeftError(Exception):
    """The client closed the connection; there is nobody to answer."""


def headers_of(scope: ASGIScope) -> Headers:
    """By name; the values of one that is given several times are put together (RFC 9110, 5.3)."""
    given = scope["headers"]
    headers: Headers = dict(given)
    if len(headers) < len(given):
        headers = {}
        for name, value in given:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def repeated_header(scope: ASGIScope, headers: Headers) -> str | None:
    """The name of one that must not be given twice, and is."""
    if len(headers) == len(scope["headers"]):
        return None
    counts = Counter(name for name, _ in scope["headers"])
    return next((name.decode() for name in sorted(_SINGLE) if counts[name] > 1), None)


def request_id_of(headers: Headers) -> str:
    """The caller's `X-Request-Id` where it is 1 to 128 plain characters; else a fresh one that sorts by time."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid7().hex


class Departure:
    """Whether a request's client has left, and who hears of it when it does.

    The server's protocol (`gateway.connections`) gives each request one, in the scope's extensions: ASGI's own way to
    learn of it is to await the next message, which takes a task beside the one that does the work.
    """

    EXTENSION = "ai_middleware.departure"
    __slots__ = ("_hearer", "_left")

    def __init__(self) -> None:
        self._left = False
        self._hearer: Callable[[], None] | None = None

    def happen(self) -> None:
        self._left = True
        if self._hearer is not None:
            self._hearer()

    def tell(self, hearer: Callable[[], None] | None) -> None:
        """Call `hearer` when the client leaves, at once if it has left; None: nobody any more."""
        self._hearer = hearer
        if self._left and hearer is not None:
            hearer()


class Exchange:
    """An HTTP request and its answer over ASGI."""

    def __init__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.headers = headers_of(scope)
        self.request_id = request_id_of(self.headers)
        self.status = 0
        self.answered = False
        self._receive = receive
        self._send = send

    def check_headers(self) -> None:
        """Raises RequestError for a header that contradicts itself."""
        if (name := repeated_header(self.scope, self.headers)) is not None:
            raise RequestError(f"the header {name} is given more than once")

    async def body(self, limit: int, hold: Callable[[int], None]) -> bytes:
        """The whole body. `hold` is told of how much of it is here. Raises RequestError, 413, past `limit` bytes; or
        ClientLeftError. The connection times it."""
        body = bytearray()
        async for chunk in self.chunks(limit):
            hold(len(body) + len(chunk))
            body += chunk
        return bytes(body)

    async def chunks(self, limit: int) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises as `body` does."""
        size, more = 0, True
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise RequestError(f"the body is larger than {limit} bytes", status=413)
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise RequestError(f"the body is larger than {limit} bytes", status=413)
            yield chunk
            more = message.get("more_body", False)

    def until_client_leaves(self) -> _DisconnectWatch:
        """What runs inside is cancelled when the client goes away unanswered."""
        return _DisconnectWatch(self, self.scope["extensions"][Departure.EXTENSION])

    async def respond(
        self, status: int, body: bytes, *, media_type: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        await self.start(
            status, media_type=media_type, headers=((b"content-length", str(len(body)).encode()), *headers)
        )
        await self.write(body, more=False)

    async def respond_json(
        self,
        status: int,
        answer: object,
        *,
        media_type: bytes = b"application/json",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        await self.respond(status, orjson.dumps(answer), media_type=media_type, headers=headers)

    async def start(
        self, status: int, *, media_type: bytes | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        """`media_type`: None for an answer without content."""
        self.status = status
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    *([] if media_type is None else [(b"content-type", media_type)]),
                    (b"x-request-id", self.request_id.encode()),
                    *headers,
                ],
            }
        )

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        self.answered = not more
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})


class _DisconnectWatch:
    """Cancels the task that entered it when the client leaves, and turns that cancellation into ClientLeftError."""

    def __init__(self, exchange: Exchange, departure: Departure) -> None:
        self._exchange = exchange
        self._departure = departure
        self._left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine always runs in a task
        self._task = task
        self._cancelling = task.cancelling()
        self._departure.tell(self._stop)

    def _stop(self) -> None:
        if not self._exchange.answered and not self._left:
            self._left = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._departure.tell(None)
        if not self._left or self._task.uncancel() > self._cancelling:
            return  # what is left of a cancellation is somebody else's
        if error is None or isinstance(error, asyncio.CancelledError):
            raise ClientLeftError from None
