"""`/graphql` over WebSocket: `graphql-transport-ws` alone, on Strawberry's handler.

Each operation builds its principal anew, so that an expired token opens nothing more on an open socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from time import thread_time
from typing import Any, cast

import orjson
import strawberry
import structlog
from graphql import ExecutionResult, OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    ConnectionInitMessage,
    PingMessage,
    SubscribeMessage,
)
from uuid_utils import uuid7

from graph.context import Context
from graph.engine import Engine
from graph.errors import internal, refusal
from resolvers.errors import (
    BadUserInputError,
    DomainError,
    RateLimitedError,
    ServiceUnavailableError,
    UnauthenticatedError,
)
from resolvers.nesting import MAX_JSON_DEPTH, nested_beyond
from resolvers.principal import Origin, Principal
from resolvers.query_costs import TURN_S, Meter, caller_of

from .capacity import Place, SocketQuota
from .document_hashes import names_document, with_document
from .endpoint import payload
from .exchange import ASGIScope, Receive, Send, headers_of, repeated_header
from .expiry import open_while_valid
from .frames import BoundedSocket
from .open_sockets import SERVICE_RESTART, OpenSockets
from .runtime import Runtime

log = structlog.get_logger("websocket")

INIT_TIMEOUT = timedelta(seconds=5)
MAX_OPERATIONS = 100
MAX_ID_CHARACTERS = 256
MAX_REASON_BYTES = 123  # of what fits into a close frame: RFC 6455, 5.5
SHUTTING_DOWN = "the server is shutting down: connect anew"
_ALL = frozenset(OperationType)


@dataclass(slots=True)
class SocketContext:
    """What belongs to a socket: the token it was opened with, looked at again for each operation. `welcome` is to be
    called once it was good (`gateway.frames`)."""

    header: str | None
    address: str | None
    welcome: Callable[[Place], None]
    trace_header: str | None = None
    connection_params: Mapping[str, Any] = field(default_factory=dict)

    def authorization(self) -> str | None:
        """`connection_init` first: browsers can't set headers on a WebSocket."""
        for name in ("Authorization", "authorization"):
            if isinstance(value := self.connection_params.get(name), str):
                return value
        return self.header

    def traceparent(self) -> str | None:
        """The same way; all operations of the socket belong to it."""
        value = self.connection_params.get("traceparent", self.trace_header)
        return value if isinstance(value, str) else None


class SocketAdapter(ASGIWebSocketAdapter):
    """Strawberry's, to whom a socket that is closed already is an error of ours, and a long reason too."""

    async def send_json(self, message: Mapping[str, object]) -> None:
        """Without the calls between: each token of a stream is sent by it."""
        if self.ws.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnected
        try:
            await self.ws.send({"type": "websocket.send", "text": self.view.encode_json(message)})
        except WebSocketDisconnect as gone:
            raise WebSocketDisconnected from gone

    async def close(self, code: int, reason: str) -> None:
        if self.ws.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect):
                await super().close(code, reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore"))


class SocketHandler(BaseGraphQLTransportWSHandler[SocketContext, None]):
    view: GraphQLSocket
    meter: Meter | None = None
    """Of who has opened it: what is read of him, he pays."""

    async def handle(self) -> None:
        async with AsyncExitStack() as self.session:
            self.session.enter_context(self.view.sockets.open(self))
            if self.view.sockets.ending:
                await self.close_if_idle()
            await super().handle()

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        if self.connection_init_received:
            await self.websocket.close(code=4429, reason="Too many initialisation requests")
            return
        self.connection_init_received = True
        if self.connection_init_timeout_task is not None:
            self.connection_init_timeout_task.cancel()
        self.context.connection_params = message.get("payload") or {}
        try:
            principal = await self.principal()
            await self._open(principal)
        except UnauthenticatedError as error:
            self.view.runtime.services.observer.refused(error.code)
            await self.websocket.close(code=4403, reason=f"Forbidden: {error.message}")
        except ServiceUnavailableError as error:  # clients take it as a reason to try again: RFC 6455, 7.4.1
            self.view.runtime.services.observer.refused(error.code)
            await self.websocket.close(code=1013, reason=f"Try again later: {error.message}")
        else:
            self.context.welcome(self.view.runtime.capacity.place(principal))
            await self.send_message({"type": "connection_ack"})
            self.connection_acknowledged = True

    async def _open(self, principal: Principal) -> None:
        """Until the socket ends. Raises OverloadedError."""
        revoked = partial(self.websocket.close, code=4403, reason="Forbidden: the key no longer opens")
        expired = partial(self.websocket.close, code=4401, reason="Unauthorized: the token has expired")
        self.session.enter_context(self.view.quota.socket(principal))
        self.meter = Meter(self.view.runtime.buckets, caller_of(principal))
        await self.session.enter_async_context(
            open_while_valid(self.view.runtime.sessions, principal, self.principal, revoked=revoked, expired=expired)
        )

    async def principal(self) -> Principal:
        """Whoever the socket's token is of, now. Raises as `Authenticator.from_header`."""
        return await self.view.runtime.authenticator.from_header(self.context.authorization(), self.context.address)

    async def handle_ping(self, message: PingMessage) -> None:
        payload = message.get("payload")
        if nested_beyond(payload, MAX_JSON_DEPTH):  # far beyond, it could be read, and not written
            await self.handle_invalid_message("the ping's payload is nested too deeply")
        else:
            await self.send_message({"type": "pong"} if payload is None else {"type": "pong", "payload": payload})

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        error: DomainError | None = None
        if self.view.sockets.ending:
            error = ServiceUnavailableError(SHUTTING_DOWN)
        elif len(self.operations) >= MAX_OPERATIONS:
            error = RateLimitedError(f"a socket has at most {MAX_OPERATIONS} operations")
        if error is None or not self.connection_acknowledged or message["id"] in self.operations:
            await super().handle_subscribe(message)
            return
        self.view.runtime.services.observer.refused(error.code)
        refused: Any = {"id": message["id"], "type": "error", "payload": [refusal(error, uuid7().hex)]}
        await self.send_message(refused)

    async def close_if_idle(self) -> None:
        if not self.operations:
            await self.websocket.close(code=SERVICE_RESTART, reason="the server is shutting down")

    async def end(self) -> None:
        """Whatever runs here is told that it can't go on; then the socket is closed."""
        for operation in list(self.operations.values()):
            if operation.task is not None:
                operation.task.cancel()
            await _send(operation, "error", [refusal(ServiceUnavailableError(SHUTTING_DOWN), uuid7().hex)])
        await self.close_if_idle()

    async def handle_message(self, message: Any) -> None:
        if self.meter is not None and self.view.reading_s >= TURN_S:
            self.meter.add(self.view.reading_s)
            await self.meter.turn()
        if not _well_formed(message):
            await self.handle_invalid_message("not a graphql-transport-ws message")
            return
        if message["type"] == "subscribe":  # Strawberry's operation keeps of the call what it knows alone
            message["payload"]["query"] = dict(message["payload"])
        await super().handle_message(message)

    async def run_operation(self, operation: Operation[SocketContext, None]) -> None:
        """Runs one operation to its end. Whatever happens in it stays in it: its siblings go on."""
        request_id = uuid7().hex
        with self.view.runtime.tracing.operation(self.context.traceparent()):
            await self._run_traced(operation, request_id)

    async def _run_traced(self, operation: Operation[SocketContext, None], request_id: str) -> None:
        try:
            principal = replace(await self.principal(), origin=Origin(self.context.address, request_id))
            with self.view.runtime.capacity.operation(principal):
                await self._run(operation, principal, request_id)
        except DomainError as error:
            self.view.runtime.services.observer.refused(error.code)
            await _send(operation, "error", [refusal(error, request_id)])
        except WebSocketDisconnected:
            self.operations.pop(operation.id, None)
        except Exception:  # a defect of ours: told masked, and to this operation alone
            log.exception("unexpected error", request_id=request_id)
            self.view.runtime.services.observer.refused("INTERNAL")
            await _send(operation, "error", [internal(request_id)])
        finally:
            if self.view.sockets.ending:
                await self.close_if_idle()

    async def _run(self, operation: Operation[SocketContext, None], principal: Principal, request_id: str) -> None:
        runtime = self.view.runtime
        call = await with_document(operation.query, runtime.trusted, principal)
        if not call.get("query"):
            raise BadUserInputError("`query` must be a GraphQL document")
        results = await self.view.engine.stream(
            call["query"],
            variables=operation.variables,
            operation_name=operation.operation_name,
            context=Context(runtime.services, principal, request_id, runtime.audit),
            allowed=_ALL,
        )
        log.info(
            "operation",
            request_id=request_id,
            organisation=principal.organisation,
            principal=principal.subject,
        )
        if isinstance(results, ExecutionResult):
            await _send(operation, "error", payload(results, request_id)["errors"])
            return
        async with aclosing(results):
            async for result in results:
                message = {"id": operation.id, "type": "next", "payload": payload(result, request_id)}
                await self.websocket.send_json(message)  # past the state machine, which a `next` leaves as it is
        await _send(operation, "complete")


async def _send(operation: Operation[SocketContext, None], kind: str, content: object = None) -> None:
    """An operation's last message, unless the client has completed it: its id may be another's by then."""
    if operation.handler.operations.get(operation.id) is not operation:
        return
    message = {"id": operation.id, "type": kind} | ({} if content is None else {"payload": content})
    with suppress(WebSocketDisconnected):
        # Strawberry's message types know only its own error and result shapes.
        await operation.send_operation_message(cast("Any", message))


class GraphQLSocket(GraphQL[SocketContext, None]):
    """The WebSocket half of the endpoint."""

    graphql_transport_ws_handler_class = SocketHandler
    websocket_adapter_class = SocketAdapter

    def __init__(self, schema: strawberry.Schema, engine: Engine, runtime: Runtime) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=INIT_TIMEOUT,
            allowed_origins=runtime.settings.ALLOWED_ORIGINS,
        )
        self.engine = engine
        self.runtime = runtime
        self.quota = SocketQuota(runtime.settings.MAX_SOCKETS_PER_PRINCIPAL)
        self.sockets = OpenSockets()
        self.reading_s = 0.0
        """Of CPU, that the message took which is handled next: nothing is awaited between."""

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if repeated_header(scope, headers_of(scope)) is not None:
            await receive()
            await send({"type": "websocket.close"})  # before it was accepted: the handshake is answered with 403
            return
        with suppress(WebSocketDisconnect):  # gone before it was accepted
            await super().__call__(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> SocketContext:
        address = self.runtime.address_of(request.scope.get("client"), headers_of(request.scope))
        welcome = request.scope["extensions"][BoundedSocket.WELCOME]
        headers = request.headers
        return SocketContext(headers.get("authorization"), address, welcome, headers.get("traceparent"))

    def encode_json(self, data: object) -> str:
        """Text, for bytes would become binary frames, which browser clients don't read."""
        return orjson.dumps(data).decode()

    def decode_json(self, data: str | bytes) -> object:
        begun = thread_time()
        decoded: object = orjson.loads(data)
        self.reading_s = thread_time() - begun
        return decoded


def _well_formed(message: object) -> bool:
    """Whether a frame has the shape that the protocol gives its type; Strawberry's handler takes that for granted."""
    match message:
        case {"type": "subscribe", "id": str(name), "payload": dict() as call}:
            return (
                0 < len(name) <= MAX_ID_CHARACTERS
                and (isinstance(call.get("query"), str) or ("query" not in call and names_document(call)))
                and isinstance(call.get("variables"), dict | None)
                and isinstance(call.get("operationName"), str | None)
                and isinstance(call.get("extensions"), dict | None)
            )
        case {"type": "complete", "id": str()}:
            return True
        case {"type": "connection_init" | "ping" | "pong", **rest}:
            return isinstance(rest.get("payload"), dict | None)
    return False
