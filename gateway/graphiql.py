"""GraphiQL: the page that `web/` is built into, served from here alone; where it was not built, Strawberry's."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from hashlib import sha256
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
_CDN = "https://unpkg.com"  # where Strawberry's page loads from, each file by its hash
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


def is_built() -> bool:
    """Whether there is a page that needs no network."""
    return (FOLDER / "index.html").is_file()


def page() -> Page:
    """What a browser gets."""
    if is_built():
        return Page((FOLDER / "index.html").read_bytes(), _headers(POLICY))
    html = get_graphql_ide_html(graphql_ide="graphiql")
    return Page(html.encode(), _headers(_policy_of(html)))


def _headers(policy: str) -> tuple[tuple[bytes, bytes], ...]:
    return (b"content-security-policy", policy.encode()), (b"cache-control", b"no-cache")


def _policy_of(html: str) -> str:
    """For a page with scripts of its own: those by their hash, and the CDN's; no other."""
    own = [base64.b64encode(sha256(script.encode()).digest()).decode() for script in _INLINE.findall(html)]
    scripts = " ".join((_CDN, *(f"'sha256-{each}'" for each in own)))
    return POLICY.replace("script-src 'self'", f"script-src {scripts}").replace("style-src", f"style-src {_CDN}")


class Assets(StaticFiles):
    """The built page's scripts, styles, workers and fonts. Only where `is_built`."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER / ASSETS)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Raises starlette.exceptions.HTTPException, 404, for what is not there; 405 for anything but GET and HEAD."""
        response = await super().get_response(path, scope)
        response.headers.update({"content-security-policy": POLICY, "cache-control": _FOREVER})
        return response
