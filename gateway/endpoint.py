"""`/graphql` over HTTP: POST, GET for queries, and server-sent events (graphql-sse, distinct connections mode).

Follows GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/) and the graphql-sse protocol
(https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
import structlog
from graphql import ExecutionResult, OperationType

from graph.context import Context
from graph.engine import Engine
from graph.errors import formatted, internal, refusal
from resolvers.errors import DomainError, ServiceUnavailableError, UnauthenticatedError
from resolvers.principal import Origin, Principal
from resolvers.query_costs import Meter, caller_of

from .capacity import Place
from .document_hashes import with_document
from .exchange import ASGIScope, ClientLeftError, Exchange, Receive, RequestError, Send
from .expiry import Ending, open_while_valid
from .graphiql import Page
from .media_types import EVENT_STREAM, GRAPHQL_JSON, JSON, accepted, check_sent
from .retry_after import retry_after
from .runtime import Runtime

log = structlog.get_logger("http")

HEARTBEAT_S = 12.0
LARGE_BODY_BYTES = 64 * 1024  # what takes 2 ms to parse at most; a larger one costs its sender the CPU that it takes
LAST_EVENT_TIMEOUT_S = 1.0  # for a client that takes nothing
_STATUS = ((UnauthenticatedError, 401), (ServiceUnavailableError, 503))
_ALLOW = (b"allow", b"GET, HEAD, POST, OPTIONS")
_HEADERS = {  # RFC 9110, 11.6.1, 10.2.1 and 15.5.16
    401: ((b"www-authenticate", b"Bearer"),),
    405: (_ALLOW,),
    415: ((b"accept", b"application/json"), (b"accept-encoding", b"identity")),
}
_COMPLETE = b"event: complete\ndata:\n\n"
_ALL = frozenset(OperationType)
_READS = frozenset({OperationType.QUERY})
_ANSWERS = frozenset({OperationType.QUERY, OperationType.MUTATION})


@dataclass(frozen=True, slots=True)
class GraphQLRequest:
    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


class GraphQLEndpoint:
    """An ASGI application. `page` is what a browser gets on GET; None where there is none."""

    def __init__(self, engine: Engine, runtime: Runtime, *, page: Page | None) -> None:
        self._engine = engine
        self._runtime = runtime
        self._page = page

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send)
        with self._runtime.tracing.operation(_text(exchange.headers.get(b"traceparent"))):
            await self._serve(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        started = time.perf_counter()
        principal: Principal | None = None
        try:
            if await self._answered_at_once(exchange):
                return
            principal = await self._principal(exchange)
            with self._runtime.capacity.operation(principal) as place:
                request = await self._read(exchange, principal, place)
                context = Context(self._runtime.services, principal, exchange.request_id, self._runtime.audit)
                with exchange.until_client_leaves():
                    await self._answer(exchange, request, context)
        except ClientLeftError:
            exchange.status = 499
        except DomainError as error:
            await self._refuse(exchange, error)
        except asyncio.CancelledError:
            if exchange.status:
                raise  # half an answer is out already: the server closes the connection
            await self._refuse(exchange, ServiceUnavailableError("the server is shutting down: ask again"))
        except Exception:  # the last place where a defect of ours can still become an answer
            log.exception("unexpected error", request_id=exchange.request_id)
            self._runtime.services.observer.refused("INTERNAL")
            if exchange.status:
                raise  # half an answer is out already: the server closes the connection
            await _respond(exchange, 500, {"errors": [internal(exchange.request_id)]})
        finally:
            log.info(
                "request",
                request_id=exchange.request_id,
                method=exchange.scope["method"],
                status=exchange.status,
                organisation=principal.organisation if principal else None,
                principal=principal.subject if principal else None,
                duration_ms=round((time.perf_counter() - started) * 1000, 2),
            )

    async def _principal(self, exchange: Exchange) -> Principal:
        address = self._runtime.address_of(exchange.scope.get("client"), exchange.headers)
        header = _text(exchange.headers.get(b"authorization"))
        principal = await self._runtime.authenticator.from_header(header, address)
        return replace(principal, origin=Origin(address, exchange.request_id))

    async def _refuse(self, exchange: Exchange, error: DomainError) -> None:
        self._runtime.services.observer.refused(error.code)
        if isinstance(error, RequestError):
            status = error.status
        else:
            status = next((each for kind, each in _STATUS if isinstance(error, kind)), 400)
        answer = {"errors": [refusal(error, exchange.request_id)]}
        await _respond(exchange, status, answer, _HEADERS.get(status, ()) + retry_after(answer))

    async def _answered_at_once(self, exchange: Exchange) -> bool:
        """What needs no token. Raises RequestError for a method that there is not, or headers that contradict."""
        method = exchange.scope["method"]
        if method == "OPTIONS":
            await exchange.start(204, headers=(_ALLOW,))
            await exchange.write(b"", more=False)
            return True
        if method not in ("GET", "HEAD", "POST"):
            raise RequestError("GraphQL is served on POST, and queries on GET", status=405)
        exchange.check_headers()
        return method == "GET" and await self._show_page(exchange)

    async def _show_page(self, exchange: Exchange) -> bool:
        browser = b"text/html" in exchange.headers.get(b"accept", b"")
        if not browser or self._page is None or _asks(exchange.scope["query_string"]):
            return False
        await exchange.respond(200, self._page.body, media_type=b"text/html; charset=utf-8", headers=self._page.headers)
        return True

    async def _read(self, exchange: Exchange, principal: Principal, place: Place) -> GraphQLRequest:
        """Raises RequestError for what is not a GraphQL request, RateLimitedError, and as `with_document` does."""
        call = await self._call(exchange, principal, place)
        return _checked(await with_document(call, self._runtime.trusted, principal))

    async def _call(self, exchange: Exchange, principal: Principal, place: Place) -> Any:
        if exchange.scope["method"] != "POST":
            return _from_query_string(exchange.scope["query_string"])
        check_sent(exchange.headers)
        body = await exchange.body(self._runtime.settings.MAX_BODY_BYTES, place.hold)
        if len(body) < LARGE_BODY_BYTES:
            return _parse_json(body, "the body")
        buckets, caller = self._runtime.buckets, caller_of(principal)
        buckets.take(caller, 1)
        meter = Meter(buckets, caller)
        try:
            with meter.working():
                return _parse_json(body, "the body")
        finally:
            meter.pay()

    async def _answer(self, exchange: Exchange, request: GraphQLRequest, context: Context) -> None:
        accept = accepted(exchange.headers.get(b"accept", b""))
        reads_only = exchange.scope["method"] != "POST"
        asked = reads_only or accept.stream
        kind = self._engine.kind(request.query, request.operation_name, context) if asked else None
        if reads_only and kind is OperationType.MUTATION:
            raise RequestError("mutations are sent by POST", status=405)
        if accept.stream and (accept.result is None or kind is OperationType.SUBSCRIPTION):
            await self._stream(exchange, request, context, _READS if reads_only else _ALL)
            return
        if accept.result is None:
            raise RequestError(
                "the answer is application/json, application/graphql-response+json or text/event-stream", status=406
            )
        result = await self._engine.execute(
            request.query,
            variables=request.variables,
            operation_name=request.operation_name,
            context=context,
            allowed=_READS if reads_only else _ANSWERS,
        )
        modern = accept.result == GRAPHQL_JSON
        status = 400 if modern and result.data is None and result.errors and not result.errors[0].path else 200
        answer = payload(result, context.request_id)
        await exchange.respond_json(status, answer, media_type=accept.result, headers=retry_after(answer))

    async def _stream(
        self, exchange: Exchange, request: GraphQLRequest, context: Context, allowed: frozenset[OperationType]
    ) -> None:
        results = await self._engine.stream(
            request.query,
            variables=request.variables,
            operation_name=request.operation_name,
            context=context,
            allowed=allowed,
        )
        if isinstance(results, ExecutionResult):  # told as the client asked for it, by the protocol's own rule
            await _start_events(exchange)
            await exchange.write(_next(payload(results, context.request_id)) + _COMPLETE, more=False)
            return
        again = partial(self._principal, exchange)
        ending = Ending()
        with ending.caught():
            async with (
                open_while_valid(
                    self._runtime.sessions,
                    context.principal,
                    again,
                    revoked=ending.because("the key no longer opens"),
                    expired=ending.because("the token has expired"),
                ),
                aclosing(results),
            ):
                await _start_events(exchange)
                await _write_events(exchange, results, context.request_id)
        if ending.reason is not None and not exchange.answered:
            await _tell_the_end(exchange, ending.reason)


async def _tell_the_end(exchange: Exchange, reason: str) -> None:
    """By a last event, unless the client takes none: then the connection breaks off."""
    answer = {"errors": [refusal(UnauthenticatedError(reason), exchange.request_id)]}
    try:
        async with asyncio.timeout(LAST_EVENT_TIMEOUT_S):
            if not exchange.status:
                await _start_events(exchange)
            await exchange.write(_next(answer) + _COMPLETE, more=False)
    except TimeoutError:
        raise ClientLeftError from None


async def _start_events(exchange: Exchange) -> None:
    await exchange.start(200, media_type=EVENT_STREAM, headers=((b"cache-control", b"no-cache"),))


def _next(answer: dict[str, Any]) -> bytes:
    return b"event: next\ndata: " + orjson.dumps(answer) + b"\n\n"


async def _write_events(exchange: Exchange, results: AsyncGenerator[ExecutionResult, None], request_id: str) -> None:
    heart = asyncio.create_task(_beat(exchange))
    try:
        async for result in results:
            await exchange.write(_next(payload(result, request_id)))
    finally:
        heart.cancel()
        await asyncio.wait([heart])
    await exchange.write(_COMPLETE, more=False)


async def _beat(exchange: Exchange) -> None:
    """Comments, so that proxies don't take a quiet stream for a dead one."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await exchange.write(b":\n\n")


def payload(result: ExecutionResult, request_id: str) -> dict[str, Any]:
    """What a result looks like on the wire, errors coded and masked."""
    answer: dict[str, Any] = {}
    if result.errors:
        answer["errors"] = formatted(result.errors, request_id)
    if not result.errors or result.data is not None or result.errors[0].path:
        answer["data"] = result.data
    if result.extensions:
        answer["extensions"] = result.extensions
    return answer


def _asks(query_string: bytes) -> bool:
    """Whether it is a call, and no browser that looks for the page."""
    return any(name in query_string for name in (b"query=", b"documentId=", b"extensions="))


async def _respond(
    exchange: Exchange, status: int, answer: dict[str, Any], headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """In the media type of a GraphQL response, where the client takes that: of plain JSON it must not rely on the body
    unless the status is 200."""
    media_type = accepted(exchange.headers.get(b"accept", b"")).result or JSON
    await exchange.respond_json(status, answer, media_type=media_type, headers=headers)


def _from_query_string(query_string: bytes) -> dict[str, Any]:
    try:
        given = parse_qsl(query_string.decode(), strict_parsing=True, max_num_fields=16, errors="strict")
    except ValueError:
        raise RequestError("the address has no readable parameters: give `query`") from None
    parameters: dict[str, Any] = dict(given)
    if len(parameters) < len(given):
        raise RequestError("the address has a parameter twice")
    for name in ("variables", "extensions"):
        if name in parameters:
            parameters[name] = _parse_json(parameters[name], f"`{name}`")
    return parameters


def _parse_json(text: bytes | str, name: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise RequestError(f"{name} is not JSON") from None


def _checked(data: Any) -> GraphQLRequest:
    if not isinstance(data, dict):
        raise RequestError("a GraphQL request is a JSON object with `query`")
    query, variables, name = data.get("query"), data.get("variables"), data.get("operationName")
    if not isinstance(query, str) or not query:
        raise RequestError("`query` must be a GraphQL document")
    if variables is not None and not isinstance(variables, dict):
        raise RequestError("`variables` must be an object")
    if name is not None and not isinstance(name, str):
        raise RequestError("`operationName` must be a string")
    if data.get("extensions") is not None and not isinstance(data["extensions"], dict):
        raise RequestError("`extensions` must be an object")
    return GraphQLRequest(query, variables, name or None)


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")
