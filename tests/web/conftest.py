"""A real server, a real Chromium, and nothing else within reach: whatever looks further is refused and noted."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from gateway import graphiql
from tests.e2e.processes import Server, running_server, server_environment

from .desk import TIMEOUT_MS, Desk

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",  # root has no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def built() -> None:
    """The page as `make` builds it; with Node here there is no excuse for its absence."""
    if graphiql.is_built():
        return
    assert not shutil.which("node"), "GraphiQL's page is not built: `make web`"
    pytest.skip("GraphiQL's page is not built: that takes Node, which is not here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """For a module, not for the session: while Playwright runs, its thread can run no other event loop."""
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        found = next((path for name in BROWSERS if (path := shutil.which(name))), playwright.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("there is no Chromium: `make test` installs one where it can")
        with playwright.chromium.launch(executable_path=found, args=FLAGS) as started:
            yield started


@pytest.fixture(scope="module")
def server(built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(server_environment(tmp_path_factory.mktemp("server"), None)) as started:
        yield started


@pytest.fixture
def token(server: Server) -> str:
    """A fresh organisation's: nothing was ever written or booked there."""
    return server.token(f"org-{secrets.token_hex(6)}")


@pytest.fixture
def desk(browser: Browser, server: Server) -> Iterator[Desk]:
    """A new visitor's browser session, found faultless at the end."""
    with browser.new_context(viewport={"width": 1280, "height": 800}, timezone_id="Asia/Kolkata") as context:
        desk = Desk.opened(context, server)
        yield desk
        desk.assert_faultless()
