"""What is added to an answer, and when."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from gateway.graphiql import page
from gateway.security_headers import DEFAULTS, TLS_ONLY, SecurityHeaders

PROXY = (ip_network("10.0.0.0/8"),)
HTTPS = (b"x-forwarded-proto", b"https")


async def answered(scope: dict[str, Any], own: Any = (), trusted: Any = PROXY) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that has these of its own."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is read")

    await SecurityHeaders(app, trusted)({"type": "http", "headers": [], **scope}, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    headers: list[tuple[bytes, bytes]] = sent[0]["headers"]
    return headers


async def test_an_answer_s_own_headers_stand() -> None:
    own = [(b"content-security-policy", b"default-src 'self'"), (b"cache-control", b"no-cache"), (b"etag", b"x")]
    headers = await answered({"client": ("10.0.0.1", 1)}, own)
    assert headers[:3] == own
    assert {name for name, _ in headers[3:]} == {b"x-content-type-options", b"referrer-policy"}


@pytest.mark.parametrize(
    ("client", "told", "trusted", "added"),
    [
        (("10.0.0.1", 1), [HTTPS], PROXY, True),
        (("10.0.0.1", 1), [(b"x-forwarded-proto", b"http")], PROXY, False),
        (("10.0.0.1", 1), [], PROXY, False),
        (("192.0.2.1", 1), [HTTPS], PROXY, False),
        (("10.0.0.1", 1), [HTTPS], (), False),
        (None, [HTTPS], PROXY, False),
    ],
)
async def test_tls_is_asked_for_where_a_trusted_proxy_has_it(client: Any, told: Any, trusted: Any, added: bool) -> None:
    headers = await answered({"client": client, "headers": told}, trusted=trusted)
    assert headers == [*DEFAULTS, *[TLS_ONLY] * added]


def test_strawberry_s_page_runs_its_own_scripts_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.graphiql.is_built", lambda: False)
    shown = page()
    policy = dict(shown.headers)[b"content-security-policy"].decode()
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert shown.body.count(b"<script>") == scripts.count("'sha256-") == 1
    assert b" onload=" not in shown.body
    assert "unsafe" not in scripts
    assert "frame-ancestors 'none'" in policy
