"""The real processes: the server as an operator starts it, and the fake vendor beside it."""

from __future__ import annotations

import base64
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.auth import mint
from resolvers.principal import Scope

PROVIDERS = ("openai", "anthropic", "google", "groq", "mistral", "openrouter", "azure", "compatible")
MODELS: Mapping[str, str] = {
    "openai": "gpt-4o-mini",
    "anthropic": "claude-haiku-4-5",
    "google": "gemini-2.5-flash",
    "groq": "llama-3.3-70b-versatile",
    "mistral": "mistral-small-latest",
    "openrouter": "openai/gpt-4o-mini",
    "azure": "my-deployment",
    "compatible": "local-model",
}
_LISTENS = re.compile(r"listens on http://[^:]+:(\d+)/graphql")
_ROOT = Path(__file__).parents[2]


@dataclass
class Vendor:
    url: str

    def stats(self) -> dict[str, dict[str, dict[str, int]]]:
        stats: dict[str, dict[str, dict[str, int]]] = httpx.get(f"{self.url}/_stats", timeout=60).json()
        return stats

    def tally(self, provider: str, model: str) -> dict[str, int]:
        return self.stats().get(provider, {}).get(model, {})


@dataclass
class Server:
    """A running server process. `secret` signs its tokens."""

    process: subprocess.Popen[str]
    port: int
    folder: Path
    secret: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/graphql"

    def token(self, organisation: str, *, scopes: list[Scope] | None = None, lifetime_s: float = 3600) -> str:
        chosen = list(Scope) if scopes is None else scopes
        return mint(self.secret, subject="tester", organisation=organisation, scopes=chosen, lifetime_s=lifetime_s)

    def log(self) -> str:
        return (self.folder / "server.log").read_text()


def server_environment(folder: Path, vendor: Vendor | None, **more: str) -> dict[str, str]:
    """LOCAL, a free port, every provider's address the fake vendor's."""
    environment = {
        "PATH": os.environ["PATH"],
        "ENVIRONMENT": "LOCAL",
        "PORT": "0",
        "DATA_DIR": str(folder),
        "JWT_TOKEN_SECRET": secrets.token_urlsafe(48),
        "ENCRYPTION_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
        "PYTHONDEVMODE": "",
        "OUTBOUND_ALLOWED_NETWORKS": "127.0.0.1",  # receivers of webhooks
        "COST_RESTORE_RATE": "20000",  # one caller's loop is no abuse, however fast the machine
    }
    if vendor is not None:
        for name in PROVIDERS:
            variable = "AZURE_OPENAI" if name == "azure" else name.upper()
            environment[f"{variable}_API_KEY"] = f"key-of-{name}"
            environment[f"{variable}_BASE_URL"] = f"{vendor.url}/v/{name}"
    return {**environment, **more}


@contextmanager
def running_server(environment: Mapping[str, str], *, first: str = "") -> Iterator[Server]:
    """Starts `ai-middleware serve`, and stops it as Kubernetes would. Its log is in DATA_DIR/server.log. `first` is
    Python that it runs before."""
    folder = Path(environment["DATA_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{first}\nfrom gateway.cli import main\nraise SystemExit(main())", "serve"]
            if first
            else [sys.executable, "-m", "gateway", "serve"],
            cwd=_ROOT,
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield Server(process, _port(process, folder), folder, environment["JWT_TOKEN_SECRET"])
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=40)
            if process.stdout is not None:
                process.stdout.close()


def _port(process: subprocess.Popen[str], folder: Path) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if found := _LISTENS.search(line):
            return int(found[1])
    raise AssertionError(f"the server did not start:\n{(folder / 'server.log').read_text()}")


@contextmanager
def running_vendor() -> Iterator[Vendor]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fake_vendor", "--port", "0"], cwd=_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield Vendor(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def post(server: Server, token: str, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """One GraphQL request over plain HTTP: the parsed answer."""
    answer: dict[str, Any] = httpx.post(
        server.url,
        json={"query": query, "variables": dict(variables or {})},
        headers={"authorization": f"Bearer {token}"},
        timeout=60,
    ).json()
    return answer
