"""`make observe`: a server under load, a fake vendor behind it, Prometheus and Alertmanager beside it, all on free
ports and in a folder of their own. Ctrl-C ends it all."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from tests.e2e.documents import COMPLETE, STREAM
from tests.e2e.processes import Server, running_server, running_vendor, server_environment
from tests.e2e.test_providers import asked
from tests.servers.prometheus import NoPrometheusError, Pod, Prometheus, running_alertmanager, running_prometheus

from .traffic import SUBMIT, limit

CLIENTS = 4
PAUSE_S = 0.4
"""On average between two calls of a client."""
UNPRICED = "openai/of-my-own"
PROVIDERS = ("openai", "openai", "anthropic", "google", "groq", "mistral")
PROMPTS = ("[[tokens=40]] [[delay=150]]",) * 8 + (
    "[[tokens=200]] [[pace=5]]",
    "[[503x2]]",
    "[[400]]",
    "[[429]] [[retry=1]]",
)
GRAPHS = {
    "requests by endpoint": "sum by (method, endpoint) (rate(http_requests_total[1m]))",
    "tokens by model": "sum by (provider, model, kind) (rate(ai_tokens_total[1m]))",
    "time to first token": "provider_model:ai_time_to_first_token_seconds:p95_5m",
    "items of batches": "sum by (mode, outcome) (rate(batch_items_total[1m]))",
    "errors by code": "sum by (code) (rate(graphql_errors_total[1m]))",
}


async def client(server: Server) -> None:
    """Completions, streams, batches and refusals, for ever."""
    async with aiohttp.ClientSession() as session:
        while True:
            organisation = random.choice(("acme", "acme", "globex", "limited", "poor"))
            document = random.choices((COMPLETE, STREAM, SUBMIT), (67, 30, 3))[0]
            streamed = document is STREAM
            asked_for = {"inputs": [call() for _ in range(10)]} if document is SUBMIT else call()
            body = {"query": document, "variables": {"input": asked_for}}
            headers = {"authorization": f"Bearer {server.token(organisation)}"}
            headers |= {"accept": "text/event-stream"} if streamed else {}
            async with session.post(server.url, json=body, headers=headers) as answer:
                await answer.read()
            await asyncio.sleep(random.expovariate(1 / PAUSE_S))


def call() -> dict[str, Any]:
    prompt = f"{random.choice(PROMPTS)} {random.random()}"  # a prompt of its own, so that `503x2` is counted anew
    if random.random() < 0.05:
        return {**asked("openai", prompt), "model": UNPRICED}
    more = {"fallbacks": [{"model": "groq/llama-3.3-70b-versatile"}]} if random.random() < 0.3 else {}
    return asked(random.choice(PROVIDERS), prompt, **more)


def tell(server: Server, prometheus: Prometheus, alertmanager: str) -> None:
    print(f"Server         {server.url}")
    print(f"  its metrics  http://127.0.0.1:{server.port}/metrics")
    print(f"  its log      {server.folder / 'server.log'}")
    print(f"Prometheus     {prometheus.url}/alerts")
    print(f"Alertmanager   {alertmanager}")
    for name, expression in GRAPHS.items():
        graph = urlencode({"g0.expr": expression, "g0.tab": 0, "g0.range_input": "15m"})
        print(f"  {name:22}{prometheus.url}/graph?{graph}")
    print("The server keeps all in files: panels of databases, of Kubernetes and of certificates stay empty.")
    print("Ctrl-C ends it all.", flush=True)


async def load(server: Server) -> None:
    """Until the process is told to end."""
    clients = [asyncio.create_task(client(server), name=f"client-{number}") for number in range(CLIENTS)]
    ending = asyncio.gather(*clients)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.cancel)
    try:
        await ending
    except asyncio.CancelledError:
        return


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ai-middleware-observe-") as name, running_vendor() as vendor:
        folder = Path(name)
        (folder / "files").mkdir()
        files = f"file://{folder}/files"  # a server behind ours, which has its panel
        with (
            running_server(server_environment(folder / "server", vendor, OBJECT_STORE_URL=files)) as server,
            running_alertmanager(folder / "alertmanager") as alertmanager,
        ):
            pods = [
                Pod("server", "ai-middleware", f"127.0.0.1:{server.port}", "internal", "api"),
                Pod("alertmanager", "alertmanager", urlsplit(alertmanager).netloc, "http", namespace="monitoring"),
            ]
            limit(server)
            with running_prometheus(folder / "prometheus", pods) as prometheus:
                tell(server, prometheus, alertmanager)
                asyncio.run(load(server))


if __name__ == "__main__":
    try:
        main()
    except NoPrometheusError as error:
        sys.exit(str(error))
