"""GraphiQL: the page that `web/` is built into, served from here alone; where it was not built, Strawberry's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope
from strawberry.http.ides import get_graphql_ide_html

FOLDER = Path(__file__).parent / "static" / "graphiql"
ASSETS = "assets"
_FOREVER = "public, max-age=31536000, immutable"  # an asset's name has the hash of its content in it

# https://www.w3.org/TR/CSP3/. In connect-src, 'self' covers the WebSocket to the page's own origin (6.7.2.8).
# Styles may be inline because the editor writes <style> elements for its themes and colours; scripts never are.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def is_built() -> bool:
    """Whether there is a page that needs no network."""
    return (FOLDER / "index.html").is_file()


def page() -> Page:
    """What a browser gets. Strawberry's page loads its scripts from a CDN, and so can't have the policy."""
    if not is_built():
        return Page(get_graphql_ide_html(graphql_ide="graphiql").encode(), ())
    headers = {**_HEADERS, "cache-control": "no-cache"}
    return Page(
        (FOLDER / "index.html").read_bytes(),
        tuple((name.encode(), value.encode()) for name, value in headers.items()),
    )


class Assets(StaticFiles):
    """The built page's scripts, styles, workers and fonts. Only where `is_built`."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER / ASSETS)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Raises starlette.exceptions.HTTPException, 404, for what is not there; 405 for anything but GET and HEAD."""
        response = await super().get_response(path, scope)
        response.headers.update({**_HEADERS, "cache-control": _FOREVER})
        return response
