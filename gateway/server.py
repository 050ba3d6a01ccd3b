"""The server process: uvicorn with every timeout stated, and what it tells the person who started it."""

from __future__ import annotations

import json
import logging
import shlex
import socket
import sys

import uvicorn

from providers.registry import ProviderRow

from . import graphiql
from .app import PATH, Gateway
from .connections import BoundedConnection
from .declared_providers import provider_rows
from .frames import BoundedSocket
from .keys import deployment_keys, developer_token
from .listening import listen
from .settings import Environment, Settings
from .telemetry import configure_logging
from .vendors import vendors

SHUTDOWN_S = 25  # Kubernetes kills after 30
KEEP_ALIVE_S = 75
_EPITAPH = "Application startup failed. Exiting."  # uvicorn's, beside the one line that says why
SCRIPTED = "scripted"
WEBSOCKET_PING_S = 20.0
SCRIPTED_EXAMPLE = "echo"


class _Announcing(uvicorn.Server):
    """Says where it listens once it does (with PORT=0 nobody knows before), or why it can't start."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, settings: Settings) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            raise self._gateway.refusal or SystemExit(1) from None
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            sys.stdout.write(announcement(self._settings, port))
            sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._gateway.end_feeds()  # they have no end of their own that could be waited for
        await super().shutdown(sockets)


def serve(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT; the exit code. Raises SettingsError where it can't start."""
    configure_logging(settings.ENVIRONMENT)
    keys = deployment_keys(settings)
    vendors(settings, keys, provider_rows(settings))
    if settings.ENVIRONMENT is Environment.LOCAL:
        developer_token(settings, keys)
    gateway = Gateway(settings)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != _EPITAPH)
    config = uvicorn.Config(
        gateway,
        loop="uvloop",
        http=BoundedConnection,
        ws=BoundedSocket,
        ws_max_size=settings.MAX_BODY_BYTES,
        ws_ping_interval=WEBSOCKET_PING_S,
        ws_ping_timeout=WEBSOCKET_PING_S,
        ws_per_message_deflate=False,  # tokens are too short to be worth the CPU
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
    )
    server = _Announcing(config, gateway, settings)
    with listen(settings.HOST, settings.PORT, variable="PORT") as listener:
        server.run(sockets=[listener])
    return 0 if server.started else 1


def announcement(settings: Settings, port: int) -> str:
    """What a person needs next. The token is shown where it was made for that: in LOCAL."""
    host = "localhost" if settings.HOST in ("127.0.0.1", "0.0.0.0", "::") else settings.HOST  # noqa: S104  # compared
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"
    if settings.ENVIRONMENT is Environment.PRODUCTION:
        return f"AI Middleware listens on {url}\n"
    keys = deployment_keys(settings)
    rows = provider_rows(settings)
    ready = list(vendors(settings, keys, rows))
    token = developer_token(settings, keys)
    missing = [row.name for row in rows if row.base_url and row.name not in ready]
    return "\n".join(
        [
            f"AI Middleware listens on {url}",
            "",
            f"  GraphiQL          {_page_address(url, token)}",
            f"  Developer token   {token}",
            f"  Providers ready   {', '.join(_label(name) for name in ready)}",
            f"  Without a key     {', '.join(missing) or 'none'}",
            "",
            "Try it:",
            "",
            _curl(url, token, next((row for row in rows if row.example and row.name in ready), None)),
            "",
            "",
        ]
    )


def _label(name: str) -> str:
    return f"{name} (a development fake, offline)" if name == SCRIPTED else name


def _page_address(url: str, token: str) -> str:
    """The built page takes the token from the fragment, which a browser sends to nobody, and drops it there."""
    if graphiql.is_built():
        return f"{url}#token={token}"
    return f"{url}   (Node did not build its page: Strawberry's loads scripts from a CDN)"


def _curl(url: str, token: str, row: ProviderRow | None) -> str:
    model = f"{SCRIPTED}/{SCRIPTED_EXAMPLE}" if row is None else f"{row.name}/{row.example}"
    query = (
        "mutation($input: CompleteInput!) { complete(input: $input) "
        "{ content provider model usage { inputTokens outputTokens cost } } }"
    )
    message = {"role": "USER", "content": "Say hello in one sentence."}
    body = {"query": query, "variables": {"input": {"model": model, "messages": [message]}}}
    return (
        f"curl -sS {shlex.quote(url)} -H 'content-type: application/json' -H 'authorization: Bearer {token}' "
        f"-d {shlex.quote(json.dumps(body))}"
    )
