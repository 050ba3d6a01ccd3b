"""The last message of an operation, and whose it is."""

from __future__ import annotations

from typing import Any

from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import Operation

from gateway.websocket import _send


class Handler:
    """A socket's operations, and what was sent; `gone`: the client is."""

    def __init__(self) -> None:
        self.operations: dict[str, Any] = {}
        self.sent: list[Any] = []
        self.gone = False

    def forget_id(self, name: str) -> None:
        del self.operations[name]

    async def send_message(self, message: Any) -> None:
        if self.gone:
            raise WebSocketDisconnected
        self.sent.append(message)

    def operation(self, name: str) -> Any:
        made: Any = Operation(self, name, "{ __typename }", None, None)  # type: ignore[arg-type, var-annotated]
        self.operations[name] = made
        return made


async def test_it_is_sent_once_and_frees_the_id() -> None:
    handler = Handler()
    operation = handler.operation("1")
    await _send(operation, "error", [])
    await _send(operation, "complete")
    assert handler.sent == [{"id": "1", "type": "error", "payload": []}]
    assert handler.operations == {}


async def test_an_operation_that_the_client_left_says_nothing_under_an_id_that_is_another_s() -> None:
    handler = Handler()
    left = handler.operation("1")
    running = handler.operation("1")
    await _send(left, "error", [])
    assert handler.sent == []
    assert handler.operations == {"1": running}


async def test_who_has_gone_is_told_nothing() -> None:
    handler = Handler()
    operation = handler.operation("1")
    handler.gone = True
    await _send(operation, "complete")
    assert handler.operations == {}
