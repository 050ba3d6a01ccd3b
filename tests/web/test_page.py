"""The page and its assets over HTTP: where they come from, what they may do, how long they are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway import graphiql
from tests.e2e.processes import Server

BROWSER = {"accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url.removesuffix("/graphql"), headers=BROWSER) as opened:
        yield opened


def addresses(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', page)


def test_the_page_names_nothing_but_its_own_assets(client: httpx.Client) -> None:
    page = client.get("/graphql")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    assert addresses(page.text)
    assert [each for each in addresses(page.text) if not each.startswith("/graphql/assets/")] == []
    assert "<script>" not in page.text
    assert "://" not in page.text


def test_the_policy(client: httpx.Client) -> None:
    page = client.get("/graphql")
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert policy.pop("style-src") == "'self' 'unsafe-inline'"
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self' data:",
        "connect-src": "'self'",
        "worker-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("suffix", "media_type"),
    [(".js", "text/javascript"), (".css", "text/css"), (".svg", "image/svg+xml"), (".ttf", "font/ttf")],
)
def test_assets_are_kept_for_good(client: httpx.Client, suffix: str, media_type: str) -> None:
    found = sorted((graphiql.FOLDER / graphiql.ASSETS).glob(f"*{suffix}"))
    assert found
    for path in found:
        answer = client.get(f"/graphql/assets/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["content-type"].partition(";")[0] == media_type
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-security-policy"] == graphiql.POLICY  # a worker has the policy that it came with
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["", "nothing.js", "../index.html", "..%2findex.html", "%2e%2e/%2e%2e/__init__.py"])
def test_what_is_no_asset_is_not_found(client: httpx.Client, path: str) -> None:
    answer = client.get(f"/graphql/assets/{path}")
    assert answer.status_code == 404
    assert "immutable" not in answer.headers.get("cache-control", "")


def test_a_query_is_no_request_for_the_page(client: httpx.Client) -> None:
    assert client.get("/graphql", params={"query": "{ __typename }"}).headers["content-type"] == "application/json"
    assert client.get("/graphql", headers={"accept": "*/*"}).headers["content-type"] == "application/json"


def test_where_nothing_was_built_the_page_is_strawberrys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphiql, "FOLDER", tmp_path)
    assert not graphiql.is_built()
    page = graphiql.page()
    assert b"GraphiQL" in page.body
    assert b"https://" in page.body
    assert b"frame-ancestors 'none'" in dict(page.headers)[b"content-security-policy"]
