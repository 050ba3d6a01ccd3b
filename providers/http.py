"""HTTP to the vendors: the one place that knows the client library. It never retries: the router does.

The client is httpx's transport interface over aiohttp (https://www.python-httpx.org/advanced/transports/,
https://docs.aiohttp.org/en/stable/client.html), used directly: no redirects are followed, no cookies are kept (tenants
share the pool), nothing is logged. Proxies and certificates come from the usual variables (HTTP_PROXY, HTTPS_PROXY,
ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR).

Where addresses come from tenants, a transport of its own, made with `outbound`, looks at each address as it connects to
it, whatever a name resolved to before. A call by a proxy is the proxy's to make, and to resolve: then only addresses
that stand in the URL itself are looked at here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache, partial
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self, cast

import aiohttp
import httpx
from aiohttp import AddrInfoType
from aiohttp.connector import Connection
from httpx_aiohttp import AiohttpTransport

from .addresses import OutboundAddresses
from .errors import ProviderBadResponseError, ProviderError, ProviderTimeoutError, ProviderUnavailableError
from .ports import TransportResponse, current_dispatch

CONNECT_TIMEOUT_S = 5.0
POOL_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 300.0
"""Of a whole answer nothing comes before it is written to its end: as long as the longest deadline of a caller."""
MAX_CONNECTIONS = 1000
MAX_BODY_BYTES = 32 * 1024 * 1024

_CLIENT_ERRORS = (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError)
_KEEPALIVE_S = 30.0
_DRAIN_S = 0.05
_RECEIVE_BUFFER_BYTES = 256 * 1024
_ROUTES = 1024
# Aiohttp would add its own; `identity` because a compressed stream reaches the reader late.
_DEFAULT_HEADERS = {"accept-encoding": "identity", "user-agent": "ai-middleware"}


class HttpTransport:
    """Implements `ports.Transport` over one connection pool. Made by `open_transport`."""

    def __init__(
        self,
        direct: AiohttpTransport,
        proxies: Mapping[str, AiohttpTransport],
        *,
        idle_timeout_s: float,
        answer_timeout_s: float,
        max_body_bytes: int,
        outbound: OutboundAddresses | None = None,
    ) -> None:
        self._direct = direct
        self._proxies = proxies
        self._outbound = outbound
        self._max_body_bytes = max_body_bytes
        self._timeouts, self._answer_timeouts = map(_timeouts, (idle_timeout_s, answer_timeout_s))
        self._route = lru_cache(_ROUTES)(self._find_route)

    def _find_route(self, url: str) -> tuple[httpx.URL, AiohttpTransport]:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise httpx.UnsupportedProtocol("a base URL begins with http:// or https:// and a host")
        proxy = self._proxies.get(parsed.scheme) or self._proxies.get("all")
        if proxy is None or urllib.request.proxy_bypass(parsed.netloc.decode()):
            return parsed, self._direct
        if self._outbound is not None and not self._outbound.may_name(parsed.host):
            raise _RefusedAddressError
        return parsed, proxy

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes, provider: str) -> TransportResponse:
        """One whole answer, whatever its status.

        Raises ProviderTimeoutError, ProviderUnavailableError, and ProviderBadResponseError for too large a body.
        """
        async with _Call(partial(self._send, url, headers, body, provider, None, self._answer_timeouts)) as answer:
            return TransportResponse(answer.status, answer.headers, await answer.read())

    def stream(
        self, url: str, *, headers: Mapping[str, str], body: bytes | None, provider: str, method: str | None = None
    ) -> _Call:
        """An answer whose body is still arriving; without a body of ours, to a GET, with one, unless `method` is given,
        to a POST. Raises as `post` does; leaving by an exception hangs up at once."""
        return _Call(partial(self._send, url, headers, body, provider, method, self._timeouts))

    async def _send(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        provider: str,
        method: str | None,
        timeouts: Mapping[str, Any],
    ) -> Answer:
        if (dispatch := current_dispatch.get()) is not None:
            dispatch.waiting = True
        try:
            parsed, transport = self._route(url)
            response = await transport.handle_async_request(_request(parsed, headers, body, timeouts, method))
        except _CLIENT_ERRORS as error:
            raise _typed(error, provider) from error
        return Answer(response, provider, self._max_body_bytes)


def _timeouts(read_s: float) -> Mapping[str, Any]:
    return {"timeout": {"connect": CONNECT_TIMEOUT_S, "pool": POOL_TIMEOUT_S, "read": read_s}}


def _request(
    url: httpx.URL,
    headers: Mapping[str, str],
    body: bytes | None,
    extensions: Mapping[str, Any],
    method: str | None,
) -> httpx.Request:
    """Without the headers that httpx would add, for aiohttp adds them too; and with encodings stated, for httpx would
    look for them in each header anew."""
    request = httpx.Request(
        method or ("GET" if body is None else "POST"),
        url,
        headers=headers,
        stream=httpx.ByteStream(body or b""),
        extensions=cast("dict[str, Any]", extensions),
    )
    request.headers.encoding = "ascii"
    request.read()
    return request


class Answer:
    """Implements `ports.TransportStream`."""

    def __init__(self, response: httpx.Response, provider: str, max_body_bytes: int) -> None:
        self.status = response.status_code
        response.headers.encoding = "latin-1"  # RFC 9110, 5.5
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._provider = provider
        self._max_body_bytes = max_body_bytes
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        raw = cast("httpx.AsyncByteStream", response.stream)
        self._body = cast("AsyncGenerator[bytes, None]", response.aiter_bytes() if encoded else aiter(raw))
        self._whole = False

    def chunks(self) -> AsyncIterator[bytes]:
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            self._whole = True
            raise
        except _CLIENT_ERRORS as error:
            raise _typed(error, self._provider) from error

    async def read(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        async for chunk in self:
            size += len(chunk)
            if size > self._max_body_bytes:
                raise ProviderBadResponseError(
                    f"an answer of more than {self._max_body_bytes} bytes", provider=self._provider, status=self.status
                )
            pieces.append(chunk)
        return b"".join(pieces)

    async def drain(self) -> None:
        """Take what little may follow the last event, so that the connection can serve the next call."""
        if self._whole:
            return
        try:
            async with asyncio.timeout(_DRAIN_S):
                async for _ in self:
                    pass
        except (TimeoutError, ProviderError):
            return  # the answer is whole already; the connection is just not used again

    async def close(self) -> None:
        try:
            await self._body.aclose()
        finally:
            await self._response.aclose()


class _Call:
    """The context of one streamed call. A class: this is on the path of every token's stream."""

    __slots__ = ("_answer", "_send")

    def __init__(self, send: Callable[[], Awaitable[Answer]]) -> None:
        self._send = send

    async def __aenter__(self) -> Answer:
        self._answer = await self._send()
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._answer.drain()
        finally:
            await self._answer.close()


class _Connector(aiohttp.TCPConnector):
    """Tells the call when it has its connection. The client's own tracing could too, for more."""

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        connection = await super().connect(*args, **kwargs)
        if (dispatch := current_dispatch.get()) is not None:
            dispatch.waiting = False
        return connection


def _bounded_socket(address: AddrInfoType) -> socket.socket:
    """Left alone, the kernel keeps megabytes for each stream whose reader stalls, and counts them to the container."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    return made


class _RefusedAddressError(OSError):
    """Without a text: where several addresses of a name are refused, the client tells of one if all say the same."""


def _sockets(outbound: OutboundAddresses | None) -> Callable[[AddrInfoType], socket.socket]:
    """Makes the socket that the client then connects to the very address given."""
    if outbound is None:
        return _bounded_socket

    def allowed_socket(address: AddrInfoType) -> socket.socket:
        if not outbound.allow(ip_address(str(address[4][0]).partition("%")[0])):
            raise _RefusedAddressError
        return _bounded_socket(address)

    return allowed_socket


def _typed(error: BaseException, provider: str) -> ProviderError:
    """The text names the kind of failure only: the client's own may quote an address with its credentials."""
    if isinstance(error.__cause__, aiohttp.ClientError):
        error = (
            error.__cause__
        )  # httpx-aiohttp files a dropped connection under connect timeouts: only aiohttp's own tells
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _RefusedAddressError):
        error = error.os_error
    match error:
        case _RefusedAddressError():
            return ProviderUnavailableError("not a public address", provider=provider, sent=False, retryable=False)
        case aiohttp.ConnectionTimeoutError():
            return ProviderTimeoutError("no connection in time", provider=provider, sent=False)
        case TimeoutError() | httpx.TimeoutException():
            return ProviderTimeoutError("no answer in time", provider=provider)
        case aiohttp.ClientHttpProxyError() | aiohttp.ClientProxyConnectionError():
            return ProviderUnavailableError("the proxy refused", provider=provider, sent=False)
        case aiohttp.ClientConnectorError() | httpx.ConnectError():
            return ProviderUnavailableError("can't connect", provider=provider, sent=False)
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return ProviderUnavailableError("not an HTTP address", provider=provider, sent=False, retryable=False)
    return ProviderUnavailableError(f"the connection broke ({type(error).__name__})", provider=provider)


def _environment_proxies() -> dict[str, httpx.Proxy]:
    """By scheme. Raises ValueError for a proxy that does not speak HTTP; the text never quotes it."""
    found = {scheme: url for scheme, url in urllib.request.getproxies().items() if scheme in ("http", "https", "all")}
    for scheme, url in found.items():
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{scheme.upper()}_PROXY must begin with http:// or https://")
    return {scheme: _proxy(url) for scheme, url in found.items()}


def _proxy(url: str) -> httpx.Proxy:
    """The credentials as a header: aiohttp takes it for the proxy's own, and deprecates the form httpx-aiohttp uses."""
    proxy = httpx.Proxy(url)
    if proxy.auth is None:
        return proxy
    return httpx.Proxy(proxy.url, headers={"authorization": aiohttp.encode_basic_auth(*proxy.auth)})


def _client(
    max_connections: int, tls: ssl.SSLContext, outbound: OutboundAddresses | None = None
) -> aiohttp.ClientSession:
    connector = _Connector(
        limit=max_connections, keepalive_timeout=_KEEPALIVE_S, ssl=tls, socket_factory=_sockets(outbound)
    )
    return aiohttp.ClientSession(connector=connector, headers=_DEFAULT_HEADERS, cookie_jar=aiohttp.DummyCookieJar())


@asynccontextmanager
async def open_transport(
    *,
    max_connections: int = MAX_CONNECTIONS,
    idle_timeout_s: float = IDLE_TIMEOUT_S,
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
    max_body_bytes: int = MAX_BODY_BYTES,
    trust_env: bool = True,
    outbound: OutboundAddresses | None = None,
) -> AsyncGenerator[HttpTransport, None]:
    """A pool of connections, closed on leaving; with `outbound` they go to no other addresses. Connecting and reading
    have their timeouts here; a total deadline, which bounds writing too, is the caller's: cancelling a call hangs up.

    Raises ValueError where an environment variable names a proxy or certificates that can't be used.
    """
    proxies = _environment_proxies() if trust_env else {}
    try:
        tls = httpx.create_ssl_context(trust_env=trust_env)
    except OSError as error:
        raise ValueError(f"SSL_CERT_FILE and SSL_CERT_DIR: can't be used: {error.strerror}") from error
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(_client(max_connections, tls, outbound))
        to_proxies = session
        if proxies and outbound is not None:  # where a proxy is, is the operator's word
            to_proxies = await stack.enter_async_context(_client(max_connections, tls))
        yield HttpTransport(
            AiohttpTransport(client=session, verify=tls),
            {name: AiohttpTransport(client=to_proxies, verify=tls, proxy=proxy) for name, proxy in proxies.items()},
            idle_timeout_s=idle_timeout_s,
            answer_timeout_s=answer_timeout_s,
            max_body_bytes=max_body_bytes,
            outbound=outbound,
        )
