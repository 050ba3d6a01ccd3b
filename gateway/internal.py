"""The internal port, for probes and not for callers: a small server beside what the process does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI, Request, Response

from .readiness import Readiness

if TYPE_CHECKING:
    from .metrics.opening import Metrics

LEAVE_S = 1
"""For a prober that keeps its connection open when the server ends."""


def internal_pages() -> FastAPI:
    return FastAPI(title="AI Middleware, internal", openapi_url=None, redirect_slashes=False)


def add_readiness(pages: FastAPI, readiness: Callable[[], Awaitable[Readiness]]) -> None:
    """`/readyz`: 200 where this process should be sent calls, else 503; either way with what it is without."""

    async def ready() -> Response:
        found = await readiness()
        return Response(f"{found}\n", status_code=503 if found.missing else 200, media_type="text/plain")

    pages.add_api_route("/readyz", ready, methods=["GET"])


def add_metrics(pages: FastAPI, metrics: Metrics) -> None:
    """`/metrics`, for Prometheus."""

    async def measured(request: Request) -> Response:
        page, media_type = await metrics.page(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": media_type})

    pages.add_api_route("/metrics", measured, methods=["GET"])


@asynccontextmanager
async def internal_server(pages: FastAPI, listener: socket.socket) -> AsyncIterator[None]:
    """Serves the pages until the context is left. Several processes may share the listener: one of them answers."""
    config = uvicorn.Config(pages, lifespan="off", access_log=False, log_config=None, timeout_graceful_shutdown=LEAVE_S)
    server = _QuietServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="internal-server")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


class _QuietServer(uvicorn.Server):
    """A second server in one process: signals belong to the first."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
