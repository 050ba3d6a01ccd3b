"""The application: `/graphql` beside the probes, and the runtime that the lifespan opens."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI, Response
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp
from strawberry.http.websocket_origin import normalize_allowed_origins

from graph.engine import Engine
from graph.schema import build_schema

from . import graphiql, object_links, usage_links
from .endpoint import GraphQLEndpoint
from .exchange import ASGIScope, Receive, Send
from .internal import add_metrics, add_readiness, internal_pages, internal_server
from .object_files import ObjectFiles
from .process_table import ProcessPlace
from .readiness import Readiness
from .runtime import Runtime, open_runtime
from .security_headers import SecurityHeaders
from .settings import Environment, Settings, SettingsError
from .usage_download import UsageDownload
from .websocket import GraphQLSocket

if TYPE_CHECKING:
    from .metrics.traffic import Traffic

PATH = "/graphql"
DOCUMENTS, FILES = ("GET", "HEAD", "POST"), ("GET", "PUT")
SHUTTING_DOWN = "the server itself (it is shutting down)"
PREFLIGHT_S = 7200  # the longest that Chromium keeps one


class Gateway:
    """The ASGI application: `/graphql` at once, everything else by FastAPI, whose layers the hot path is spared.

    The lifespan opens the runtime; `refusal` is what kept it from that, and what the operator can mend.
    """

    def __init__(self, settings: Settings, internal: socket.socket | None = None) -> None:
        """`internal` is the internal port's listener, where there is one. What several processes have in common is made
        here, before they part."""
        self._settings = settings
        self._internal = internal
        self._place: ProcessPlace | None = None
        self._schema = build_schema()
        self._engine = Engine(self._schema, explorable=settings.explorable)
        self._pages = _pages()
        self._served = SecurityHeaders(self._serve, settings.TRUSTED_PROXIES)
        self.refusal: SettingsError | None = None
        self._draining = False
        self._runtime: Runtime | None = None
        self._http: ASGIApp | None = None
        self._socket: GraphQLSocket | None = None
        self._traffic: Traffic | None = None

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._traffic is not None  # noqa: S101  # the lifespan runs before the first request
        await self._traffic.serve(self._served, scope, receive, send)

    async def _serve(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["path"] == PATH:
            endpoint = self._http if scope["type"] == "http" else self._socket
            assert endpoint is not None  # noqa: S101  # as above
            await endpoint(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    def sit(self, place: ProcessPlace) -> None:
        """This process is one of several, which tell each other how they do."""
        self._place = place

    async def drain(self) -> None:
        """The process is to end: `/readyz` says so from now on, feeds tell their listeners to ask anew, and sockets on
        which nothing runs are closed. What runs goes on."""
        self._draining = True
        if self._runtime is not None and self._socket is not None:
            self._runtime.services.health.close()
            await self._runtime.services.live_usage.close()
            await self._runtime.services.batches.progress.close()
            await self._socket.sockets.drain()

    async def end_batch_work(self) -> None:
        """Items of batches end soon, or go back to their queue: others take them, and nobody waits for the rest."""
        if self._runtime is not None:
            await self._runtime.batch_work.aclose()

    def completing(self) -> bool:
        """Whether a completion runs, be it without a connection."""
        return self._runtime is not None and len(self._runtime.services.running) > 0

    def cut_short(self) -> None:
        """Completions that still run are booked, and told to their callers, as broken off by the process's end."""
        if self._runtime is not None:
            self._runtime.services.running.interrupt_all()

    async def end_sockets(self) -> None:
        """Nothing more is waited for: those that are open are closed, whatever runs on them."""
        if self._socket is not None:
            await self._socket.sockets.end()

    async def readiness(self) -> Readiness:
        assert self._runtime is not None  # noqa: S101  # the lifespan runs before the first request
        found = await self._runtime.readiness()
        place = self._place
        missing, away = ([], []) if place is None else place.others()
        ending = [SHUTTING_DOWN] * (self._draining or (place is not None and place.table.ending()))
        return Readiness([*ending, *found.missing, *missing], [*found.away, *away])

    async def _live(self, receive: Receive, send: Send) -> None:
        """The ASGI lifespan protocol (https://asgi.readthedocs.io/en/latest/specs/lifespan.html)."""
        await receive()
        try:
            async with self._running():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except SettingsError as error:
            self.refusal = error
            await send({"type": "lifespan.startup.failed"})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        settings = self._settings
        local = settings.ENVIRONMENT is Environment.LOCAL
        async with AsyncExitStack() as stack:
            self._runtime = runtime = await stack.enter_async_context(open_runtime(settings))
            self._engine.count(runtime.buckets)
            self._engine.observer = runtime.services.observer
            self._traffic = runtime.metrics.counting(self._engine)
            endpoint = GraphQLEndpoint(self._engine, runtime, page=graphiql.page() if settings.explorable else None)
            self._http = _for_browsers(endpoint, settings.ALLOWED_ORIGINS)
            self._socket = GraphQLSocket(self._schema, self._engine, runtime)
            download = _for_browsers(UsageDownload(runtime), settings.ALLOWED_ORIGINS)
            self._pages.router.routes.append(Route(usage_links.PATH, download))
            files = _for_browsers(ObjectFiles(runtime.objects, runtime.object_links), settings.ALLOWED_ORIGINS, FILES)
            self._pages.router.routes.append(Route(object_links.PATH, files))
            if self._place is not None:
                await stack.enter_async_context(self._place.taken(runtime.own_troubles))
            if local:
                add_readiness(self._pages, self.readiness)
                add_metrics(self._pages, runtime.metrics)
            if self._internal is not None:
                pages = internal_pages()
                add_readiness(pages, self.readiness)
                add_metrics(pages, runtime.metrics)
                await stack.enter_async_context(internal_server(pages, self._internal))
            if settings.explorable and graphiql.is_built():
                self._pages.mount(f"{PATH}/{graphiql.ASSETS}", graphiql.Assets())
            _spare_the_collector()
            yield


def _for_browsers(endpoint: ASGIApp, origins: tuple[str, ...], methods: Sequence[str] = DOCUMENTS) -> ASGIApp:
    """CORS (https://fetch.spec.whatwg.org/#http-cors-protocol) without credentials: tokens go in a header."""
    if not origins:
        return endpoint
    return CORSMiddleware(
        endpoint,
        allow_origins=normalize_allowed_origins(origins),
        allow_methods=methods,
        allow_headers=("accept", "authorization", "content-type", "x-request-id"),
        expose_headers=("content-disposition", "retry-after", "x-request-id"),
        max_age=PREFLIGHT_S,
    )


def _pages() -> FastAPI:
    pages = FastAPI(title="AI Middleware", openapi_url=None, redirect_slashes=False)
    pages.add_api_route("/healthcheck", _alive, methods=["GET"])
    return pages


async def _alive() -> Response:
    return Response("alive\n", media_type="text/plain")


def _spare_the_collector() -> None:
    """What was made at start lives as long as the process: the schema, prices, modules. Collections skip it from here
    on, and come at every 10,000 new objects instead of every 700."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
