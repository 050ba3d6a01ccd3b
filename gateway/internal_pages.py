"""What an orchestrator and Prometheus ask of a process: `/healthcheck`, `/readyz` and `/metrics`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .listening import listen
from .readiness import Readiness
from .settings import Settings

if TYPE_CHECKING:
    from .metrics.opening import Metrics


def internal_pages(readiness: Callable[[], Awaitable[Readiness]], metrics: Metrics) -> Sequence[Route]:
    async def alive(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        found = await readiness()
        return PlainTextResponse(f"{found}\n", 503 if found.missing else 200)

    async def measured(request: Request) -> Response:
        page, media_type = await metrics.page(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": media_type})

    return [Route("/healthcheck", alive), Route("/readyz", ready), Route("/metrics", measured)]


@asynccontextmanager
async def internal_server(settings: Settings, pages: Sequence[Route]) -> AsyncIterator[None]:
    """The pages on a port of their own, which the public one never shows. Raises SettingsError."""
    server = _QuietServer(uvicorn.Config(Starlette(routes=pages), lifespan="off", access_log=False, log_config=None))
    with listen(settings.HOST, settings.INTERNAL_PORT, variable="INTERNAL_PORT") as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
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
