"""What a person does with the page, and what must never happen meanwhile."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Route, expect

from tests.e2e.processes import Server

TIMEOUT_MS = 15_000
WATCH_POLICY = """
window.violations = [];
addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""
WATCH_DELTAS = """(stopAt) => {
  window.shown = [];
  new MutationObserver(() => {
    const text = document.querySelector(".streamed p")?.textContent;
    if (text && text !== window.shown.at(-1)) {
      window.shown.push(text);
      if (window.shown.length === stopAt) document.querySelector(".graphiql-execute-button").click();
    }
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
RESPONSE = "__MONACO.editor.getModels().find((model) => model.uri.path.endsWith('response.json')).getValue()"


@dataclass
class Desk:
    page: Page
    server: Server
    faults: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)

    @classmethod
    def opened(cls, context: BrowserContext, server: Server) -> Desk:
        desk = cls(context.new_page(), server)
        context.set_default_timeout(TIMEOUT_MS)
        context.add_init_script(WATCH_POLICY)
        context.route("**/*", desk._pass)
        desk.page.on("console", desk._hear)
        desk.page.on("pageerror", lambda error: desk.faults.append(f"error: {error}"))
        desk.page.on("websocket", lambda socket: desk.sockets.append(socket.url))
        return desk

    def _pass(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if address.scheme == "data" or address.netloc == f"127.0.0.1:{self.server.port}":
            route.continue_()
        else:
            self.faults.append(f"request: {route.request.url}")
            route.abort()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def assert_faultless(self) -> None:
        assert self.faults == []
        assert set(self.sockets) <= {self.server.socket_url}
        assert self.page.evaluate("window.violations") == []

    def visit(self, token: str | None = None) -> None:
        self.page.goto(self.server.url + (f"#token={token}" if token else ""))
        self.wait_for_editors()

    def reload(self) -> None:
        self.page.reload()
        self.wait_for_editors()

    def wait_for_editors(self) -> None:
        self.page.wait_for_function("() => window.__MONACO?.editor.getEditors().length === 3")

    def choose(self, tab: str) -> None:
        self.page.get_by_role("tablist").get_by_role("button", name=tab, exact=True).click()

    def run(self) -> None:
        self.page.get_by_role("button", name="Execute query").click()

    def stop(self) -> None:
        self.page.get_by_role("button", name="Stop query").click()

    def running(self) -> bool:
        return self.page.get_by_role("button", name="Stop query").is_visible()

    def response(self, *, until: str) -> dict[str, Any]:
        """What the response's editor holds, once that matches a regular expression."""
        self.page.wait_for_function(f"(pattern) => new RegExp(pattern).test({RESPONSE})", arg=until)
        answer: dict[str, Any] = json.loads(self.page.evaluate(RESPONSE))
        return answer

    def stored(self, storage: str) -> str:
        """All that localStorage or sessionStorage holds."""
        held: str = self.page.evaluate(f"JSON.stringify({storage})")
        return held

    def streamed(self) -> str:
        return self.page.get_by_role("log", name="Streamed text").inner_text()

    def watch_deltas(self, *, stop_at: int | None = None) -> None:
        """From here on the page notes each text that it shows, and presses its stop button at so many of them."""
        self.page.evaluate(WATCH_DELTAS, stop_at)

    def shown(self) -> list[str]:
        """The texts that the page has noted, oldest first."""
        texts: list[str] = self.page.evaluate("window.shown")
        return texts

    def wait_for_deltas(self, count: int) -> None:
        self.page.wait_for_function("(count) => window.shown.length >= count", arg=count)

    def token_field(self) -> str:
        return self.page.get_by_label("Token").input_value()

    def type_token(self, token: str) -> None:
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_label("Token").press("Enter")

    def expect_schema(self) -> None:
        """The documentation pane lists the root types."""
        pane = self.page.locator(".graphiql-doc-explorer")
        if not pane.is_visible():
            self.page.get_by_role("button", name="Show Documentation Explorer").click()
        expect(pane.get_by_text(re.compile(r"^Mutation$"))).to_be_visible()
