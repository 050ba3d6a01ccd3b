"""The application: `/graphql` beside the probes, and the runtime that the lifespan opens."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from strawberry.http.ides import get_graphql_ide_html

from graph.engine import Engine
from graph.schema import build_schema

from .endpoint import GraphQLEndpoint
from .exchange import ASGIScope, Receive, Send
from .runtime import Runtime, open_runtime
from .settings import Environment, Settings
from .websocket import GraphQLSocket

PATH = "/graphql"


class Gateway:
    """The ASGI application: `/graphql` at once, everything else by FastAPI, whose layers the hot path is spared."""

    def __init__(self, pages: FastAPI) -> None:
        self.pages = pages
        self.http: GraphQLEndpoint | None = None
        self.socket: GraphQLSocket | None = None

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and scope["path"] == PATH:
            endpoint = self.http if scope["type"] == "http" else self.socket
            assert endpoint is not None  # noqa: S101  # the lifespan runs before the first request
            await endpoint(scope, receive, send)
        else:
            await self.pages(scope, receive, send)


def create_app(settings: Settings) -> Gateway:
    """The server's application. Its lifespan opens the runtime and raises SettingsError where it can't."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        schema = build_schema()
        engine = Engine(schema)
        async with open_runtime(settings) as runtime, _internal_server(settings, runtime):
            page = get_graphql_ide_html(graphql_ide="graphiql").encode() if _is_local(settings) else None
            gateway.http = GraphQLEndpoint(engine, runtime, page=page)
            gateway.socket = GraphQLSocket(schema, engine, runtime)
            if _is_local(settings):
                add_readiness(app, runtime)
            spare_the_collector()
            yield {"runtime": runtime}

    app = FastAPI(title="AI Middleware", lifespan=lifespan, openapi_url=None)
    app.add_api_route("/healthcheck", _alive, methods=["GET"])
    gateway = Gateway(app)
    return gateway


def spare_the_collector() -> None:
    """What was made at start lives as long as the process: the schema, prices, modules. Collections skip it from here
    on, and come at every 10,000 new objects instead of every 700."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def add_readiness(app: FastAPI, runtime: Runtime) -> None:
    async def ready() -> Response:
        missing = runtime.missing()
        text = f"missing: {', '.join(missing)}" if missing else "ready"
        return Response(text + "\n", status_code=503 if missing else 200, media_type="text/plain")

    app.add_api_route("/readyz", ready, methods=["GET"])


async def _alive() -> Response:
    return Response("alive\n", media_type="text/plain")


def _is_local(settings: Settings) -> bool:
    return settings.ENVIRONMENT is Environment.LOCAL


@asynccontextmanager
async def _internal_server(settings: Settings, runtime: Runtime) -> AsyncIterator[None]:
    """`/readyz` on a port of its own, which the public one never shows; LOCAL has it on the public one."""
    if _is_local(settings):
        yield
        return
    app = FastAPI(title="AI Middleware, internal", openapi_url=None)
    add_readiness(app, runtime)
    config = uvicorn.Config(
        app, host=settings.HOST, port=settings.INTERNAL_PORT, lifespan="off", access_log=False, log_config=None
    )
    server = _QuietServer(config)
    serving = asyncio.create_task(server.serve())
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
