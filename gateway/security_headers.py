"""Headers that tell a browser what not to do with an answer, on every one that goes out."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp

from .client_address import Network, is_trusted
from .exchange import ASGIScope, Message, Receive, Send

# https://www.w3.org/TR/CSP3/. For what is no page: it runs nothing, loads nothing and stands in no frame.
NOTHING = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
DEFAULTS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", NOTHING),
    (b"cache-control", b"no-store"),
)
TLS_ONLY = (b"strict-transport-security", b"max-age=31536000")  # RFC 6797; subdomains are not ours to speak for
_NAMES = frozenset(name for name, _ in (*DEFAULTS, TLS_ONLY))


class SecurityHeaders:
    """An ASGI application around another. An answer's own headers stand; TLS_ONLY is for requests that came over TLS,
    as a proxy of `trusted` says in `X-Forwarded-Proto`: without that nobody knows that there is any."""

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        defaults = (*DEFAULTS, TLS_ONLY) if self._came_over_tls(scope) else DEFAULTS

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                added = defaults if own.isdisjoint(_NAMES) else [each for each in defaults if each[0] not in own]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, sending)

    def _came_over_tls(self, scope: ASGIScope) -> bool:
        client = scope.get("client")
        if not self._trusted or not client or not is_trusted(client[0], self._trusted):
            return False
        return (b"x-forwarded-proto", b"https") in scope["headers"]
