"""HTTP requests and WebSockets, counted at the edge."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from starlette.types import ASGIApp

from ..exchange import ASGIScope, Message, Receive, Send
from .instruments import Instruments
from .labels import OTHER

LEFT = 499
"""The client closed the connection before there was an answer: the status that logs have for it too."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ENDPOINTS = frozenset({"/graphql", "/usage.csv", "/files", "/healthcheck", "/readyz", "/metrics"})


class Traffic:
    """Around an ASGI application."""

    def __init__(self, instruments: Instruments) -> None:
        self._requests = instruments.counters("http_requests_total")
        self._durations = instruments.histograms("http_request_duration_seconds")
        self._in_flight = instruments.gauge("http_requests_in_flight")
        self._connections = instruments.gauge("websocket_connections")
        self._answering = 0
        self._sockets = 0

    async def serve(self, app: ASGIApp, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            self._sockets += 1
            try:
                await app(scope, receive, send)
            finally:
                self._sockets -= 1
            return
        answer = _Answer(send)
        began = time.perf_counter()
        self._answering += 1
        try:
            await app(scope, receive, answer)
        finally:
            self._answering -= 1
            method = scope["method"] if scope["method"] in METHODS else OTHER
            endpoint = scope["path"] if scope["path"] in ENDPOINTS else OTHER
            self._requests[method, endpoint, str(answer.status)].inc()
            self._durations[method, endpoint].observe(time.perf_counter() - began)

    def look(self) -> None:
        self._in_flight.set(self._answering)
        self._connections.set(self._sockets)


class _Answer:
    """What is sent, and the status of it."""

    __slots__ = ("_send", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = LEFT

    def __call__(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        return self._send(message)
