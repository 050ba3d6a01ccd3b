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
from resolvers.sessions import End

from .claims import UnusableTokenError
from .exchange import ASGIScope, ClientLeftError, Exchange, Receive, RequestError, Send
from .graphiql import Page
from .runtime import Runtime

log = structlog.get_logger("http")

JSON = b"application/json"
GRAPHQL_JSON = b"application/graphql-response+json"
EVENT_STREAM = b"text/event-stream"
HEARTBEAT_S = 12.0
_STATUS = {UnusableTokenError: 401, UnauthenticatedError: 401, ServiceUnavailableError: 503}
_HEADERS = {401: ((b"www-authenticate", b"Bearer"),), 405: ((b"allow", b"GET, POST"),)}  # RFC 9110, 11.6.1 and 10.2.1
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
            if await self._show_page(exchange):
                return
            principal = await self._principal(exchange)
            request = await self._read(exchange)
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
            await exchange.respond_json(500, {"errors": [internal(exchange.request_id)]})
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
        status = error.status if isinstance(error, RequestError) else _STATUS.get(type(error), 400)
        answer = {"errors": [refusal(error, exchange.request_id)]}
        await exchange.respond_json(status, answer, headers=_HEADERS.get(status, ()))

    async def _show_page(self, exchange: Exchange) -> bool:
        browser = exchange.scope["method"] == "GET" and b"text/html" in exchange.headers.get(b"accept", b"")
        if not browser or self._page is None or b"query=" in exchange.scope["query_string"]:
            return False
        await exchange.respond(200, self._page.body, media_type=b"text/html; charset=utf-8", headers=self._page.headers)
        return True

    async def _read(self, exchange: Exchange) -> GraphQLRequest:
        """Raises RequestError for what is not a GraphQL request."""
        method = exchange.scope["method"]
        if method == "GET":
            return _from_query_string(exchange.scope["query_string"])
        if method != "POST":
            raise RequestError("GraphQL is served on POST, and queries on GET", status=405)
        media_type = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media_type != JSON:
            raise RequestError("the body must be JSON, with content-type application/json", status=415)
        body = await exchange.body(self._runtime.settings.MAX_BODY_BYTES)
        return _checked(_parse_json(body, "the body"))

    async def _answer(self, exchange: Exchange, request: GraphQLRequest, context: Context) -> None:
        reads_only = exchange.scope["method"] == "GET"
        if reads_only and self._engine.kind(request.query, request.operation_name) is OperationType.MUTATION:
            raise RequestError("mutations are sent by POST", status=405)
        accept = exchange.headers.get(b"accept", b"")
        if EVENT_STREAM in accept:
            await self._stream(exchange, request, context, _READS if reads_only else _ALL)
            return
        result = await self._engine.execute(
            request.query,
            variables=request.variables,
            operation_name=request.operation_name,
            context=context,
            allowed=_READS if reads_only else _ANSWERS,
        )
        modern = GRAPHQL_JSON in accept
        status = 400 if modern and result.data is None and result.errors and not result.errors[0].path else 200
        await exchange.respond_json(
            status, payload(result, context.request_id), media_type=GRAPHQL_JSON if modern else JSON
        )

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
        if isinstance(results, ExecutionResult):
            await exchange.respond_json(400, payload(results, context.request_id))
            return
        with self._runtime.sessions.session(context.principal, _ends_this_task()):
            async with aclosing(results):
                await exchange.start(200, media_type=EVENT_STREAM, headers=((b"cache-control", b"no-cache"),))
                await _write_events(exchange, results, context.request_id)


def _ends_this_task() -> End:
    """The stream breaks off, and its connection is closed."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  # a request is served by one

    async def end() -> None:
        task.cancel()

    return end


async def _write_events(exchange: Exchange, results: AsyncGenerator[ExecutionResult, None], request_id: str) -> None:
    heart = asyncio.create_task(_beat(exchange))
    try:
        async for result in results:
            await exchange.write(b"event: next\ndata: " + orjson.dumps(payload(result, request_id)) + b"\n\n")
    finally:
        heart.cancel()
        await asyncio.wait([heart])
    await exchange.write(b"event: complete\ndata:\n\n", more=False)


async def _beat(exchange: Exchange) -> None:
    """Comments, so that proxies don't take a quiet stream for a dead one."""
    while True:
        await asyncio.sleep(HEARTBEAT_S)
        await exchange.write(b":\n\n")


def payload(result: ExecutionResult, request_id: str) -> dict[str, Any]:
    """What a result looks like on the wire, errors coded and masked."""
    if not result.errors:
        return {"data": result.data}
    answer: dict[str, Any] = {"errors": formatted(result.errors, request_id)}
    if result.data is not None or result.errors[0].path:
        answer["data"] = result.data
    return answer


def _from_query_string(query_string: bytes) -> GraphQLRequest:
    try:
        parameters: dict[str, Any] = dict(parse_qsl(query_string.decode(), strict_parsing=True, max_num_fields=16))
    except ValueError:
        raise RequestError("the address has no readable parameters: give `query`") from None
    if "variables" in parameters:
        parameters["variables"] = _parse_json(parameters["variables"], "`variables`")
    return _checked(parameters)


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
