"""`/graphql` over WebSocket: `graphql-transport-ws` alone, on Strawberry's handler.

Each operation builds its principal anew, so that an expired token opens nothing more on an open socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, cast

import orjson
import strawberry
import structlog
from graphql import ExecutionResult, OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler, Operation
from strawberry.subscriptions.protocols.graphql_transport_ws.types import ConnectionInitMessage, SubscribeMessage
from strawberry.types.unset import UnsetType
from uuid_utils import uuid7

from graph.context import Context
from graph.engine import Engine
from graph.errors import internal, refusal
from resolvers.errors import DomainError, ServiceUnavailableError, UnauthenticatedError
from resolvers.principal import Origin, Principal

from .endpoint import payload
from .open_sockets import SERVICE_RESTART, OpenSockets
from .runtime import Runtime

log = structlog.get_logger("websocket")

INIT_TIMEOUT = timedelta(seconds=10)
MAX_OPERATIONS = 100
SHUTTING_DOWN = "the server is shutting down: connect anew"
_ALL = frozenset(OperationType)


@dataclass(slots=True)
class SocketContext:
    """What belongs to a socket: the token it was opened with, looked at again for each operation."""

    header: str | None
    address: str | None
    trace_header: str | None = None
    principal: Principal | None = None
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


class SocketHandler(BaseGraphQLTransportWSHandler[SocketContext, None]):
    view: GraphQLSocket

    async def handle(self) -> None:
        with ExitStack() as self.session:
            self.session.enter_context(self.view.sockets.open(self))
            if self.view.sockets.ending:
                await self.close_if_idle()
            await super().handle()

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        await super().handle_connection_init(message)
        if self.connection_acknowledged and (principal := self.context.principal) is not None:
            self.session.enter_context(self.view.runtime.sessions.session(principal, self._revoked))

    async def _revoked(self) -> None:
        await self.websocket.close(code=4403, reason="Forbidden")

    async def close_if_idle(self) -> None:
        if not self.operations:
            with suppress(RuntimeError, WebSocketDisconnect):  # it is closed already
                await self.websocket.close(code=SERVICE_RESTART, reason="the server is shutting down")

    async def end(self) -> None:
        """Whatever runs here is told that it can't go on; then the socket is closed."""
        for operation in list(self.operations.values()):
            if operation.task is not None:
                operation.task.cancel()
            with suppress(WebSocketDisconnected):
                await _send(operation, "error", [refusal(ServiceUnavailableError(SHUTTING_DOWN), uuid7().hex)])
        await self.close_if_idle()

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        if self.view.sockets.ending and self.connection_acknowledged and message["id"] not in self.operations:
            error = refusal(ServiceUnavailableError(SHUTTING_DOWN), uuid7().hex)
            await self.websocket.send_json({"id": message["id"], "type": "error", "payload": [error]})
        else:
            await super().handle_subscribe(message)

    async def handle_message(self, message: Any) -> None:
        if not _well_formed(message):
            await self.handle_invalid_message("not a graphql-transport-ws message")
            return
        await super().handle_message(message)

    async def run_operation(self, operation: Operation[SocketContext, None]) -> None:
        """Runs one operation to its end. Whatever happens in it stays in it: its siblings go on."""
        request_id = uuid7().hex
        with self.view.runtime.tracing.operation(self.context.traceparent()):
            await self._run_traced(operation, request_id)

    async def _run_traced(self, operation: Operation[SocketContext, None], request_id: str) -> None:
        try:
            await self._run(operation, request_id)
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

    async def _run(self, operation: Operation[SocketContext, None], request_id: str) -> None:
        runtime = self.view.runtime
        found = await runtime.authenticator.from_header(self.context.authorization(), self.context.address)
        principal = replace(found, origin=Origin(self.context.address, request_id))
        results = await self.view.engine.stream(
            operation.query,
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
        await operation.send_operation_message({"id": operation.id, "type": "complete"})


async def _send(operation: Operation[SocketContext, None], kind: str, content: object) -> None:
    # Strawberry's message types know only its own error and result shapes.
    await operation.send_operation_message(cast("Any", {"id": operation.id, "type": kind, "payload": content}))


class GraphQLSocket(GraphQL[SocketContext, None]):
    """The WebSocket half of the endpoint."""

    graphql_transport_ws_handler_class = SocketHandler

    def __init__(self, schema: strawberry.Schema, engine: Engine, runtime: Runtime) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            connection_init_wait_timeout=INIT_TIMEOUT,
            max_subscriptions_per_connection=MAX_OPERATIONS,
            allowed_origins=runtime.settings.ALLOWED_ORIGINS,
        )
        self.engine = engine
        self.runtime = runtime
        self.sockets = OpenSockets()

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> SocketContext:
        headers = dict(request.headers.raw)
        address = self.runtime.address_of(request.scope.get("client"), headers)
        return SocketContext(
            header=request.headers.get("authorization"),
            address=address,
            trace_header=request.headers.get("traceparent"),
        )

    async def on_ws_connect(self, context: SocketContext) -> UnsetType | dict[str, object] | None:
        try:
            context.principal = await self.runtime.authenticator.from_header(context.authorization(), context.address)
        except (UnauthenticatedError, ServiceUnavailableError) as error:
            raise ConnectionRejectionError from error
        return UnsetType()

    def encode_json(self, data: object) -> str:
        """Text, for bytes would become binary frames, which browser clients don't read."""
        return orjson.dumps(data).decode()

    def decode_json(self, data: str | bytes) -> object:
        decoded: object = orjson.loads(data)
        return decoded


def _well_formed(message: object) -> bool:
    """Whether a frame has the shape that the protocol gives its type; Strawberry's handler takes that for granted."""
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        return False
    if message["type"] == "complete":
        return isinstance(message.get("id"), str)
    if message["type"] != "subscribe":
        return True
    call = message.get("payload")
    return (
        isinstance(message.get("id"), str)
        and isinstance(call, dict)
        and isinstance(call.get("query"), str)
        and isinstance(call.get("variables") or {}, dict)
        and isinstance(call.get("operationName") or "", str)
    )
