"""Batches through worker processes on a real RabbitMQ and MongoDB: none of the items lost, none answered twice,
whatever is killed meanwhile. And on the embedded default, by the command line."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import orjson
import pytest

from tests.servers.mongo import migrated_database, shared_mongo
from tests.servers.ports import free_port
from tests.servers.postgres import new_database, rows, shared_postgres
from tests.servers.rabbit import Broker, rabbit_or_skip, running_rabbit

from .processes import Server, Vendor, post, running_server, server_environment
from .test_cli import command

SUBMIT = """
mutation Submit($input: SubmitBatchInput!) { submitBatch(input: $input) { batch { id counts { total } } } }
"""
UPLOAD = "mutation { uploadBatchFile(input: {}) { file url } }"
BATCH = """
query Batch($id: ID!) {
  batch(id: $id) {
    state cost unpriced endedAt results { url }
    counts { total waiting queued running succeeded failed cancelled }
    items(first: 2, states: [SUCCEEDED]) { nodes { index state completionId completion { content } } }
  }
}
"""
_ENTRIES = """
    SELECT completion_id, attempt, input_tokens, output_tokens, estimated, outcome
    FROM ledger_entries WHERE organisation = $1
"""
TOKENS = 5


@dataclass
class Workers:
    """So many at any time: whoever is killed has a successor at once."""

    environment: Mapping[str, str]
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        with (self.folder / "workers.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "worker"], env=dict(self.environment), stderr=log
            )
        self.running.append(process)

    def kill_one(self) -> None:
        process = random.choice(self.running)
        process.kill()
        process.wait()
        self.running.remove(process)
        self.start()

    def stop(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            process.wait(timeout=60)


@dataclass
class Plant:
    server: Server
    workers: Workers
    broker: Broker
    vendor: Vendor
    ledger: str
    organisation: str

    @property
    def model(self) -> str:
        return f"openai/{self.organisation}"

    def ask(self, query: str, variables: Mapping[str, Any] | None = None) -> Any:
        answer = post(self.server, self.server.token(self.organisation), query, variables)
        assert "errors" not in answer, answer
        return answer["data"]

    def submit(self, count: int, prompt: str) -> str:
        link = self.ask(UPLOAD)["uploadBatchFile"]
        line = {"messages": [{"role": "USER", "content": prompt}]}
        content = b"".join(orjson.dumps({**line, "customId": f"n{number}"}) + b"\n" for number in range(count))
        httpx.put(urljoin(self.server.url, link["url"]), content=content, timeout=60).raise_for_status()
        asked = {"file": link["file"], "model": self.model}
        batch = self.ask(SUBMIT, {"input": asked})["submitBatch"]["batch"]
        assert batch["counts"]["total"] == count
        found: str = batch["id"]
        return found

    def batch(self, batch_id: str) -> Any:
        return self.ask(BATCH, {"id": batch_id})["batch"]

    def done(self, batch_id: str) -> int:
        counts = self.batch(batch_id)["counts"]
        return int(counts["succeeded"] + counts["failed"])

    def until(self, batch_id: str, done: int, *, within_s: float) -> None:
        give_up = time.monotonic() + within_s
        while self.done(batch_id) < done:
            assert time.monotonic() < give_up, self.batch(batch_id)
            time.sleep(0.2)

    def ended(self, batch_id: str, *, within_s: float) -> Any:
        give_up = time.monotonic() + within_s
        while (batch := self.batch(batch_id))["endedAt"] is None:
            assert time.monotonic() < give_up, batch
            time.sleep(0.2)
        return batch


@contextmanager
def running_plant(folder: Path, vendor: Vendor, *, workers: int, prefetch: int = 10) -> Iterator[Plant]:
    rabbit_or_skip()
    postgres = shared_postgres()
    with ExitStack() as stack:
        broker = stack.enter_context(running_rabbit())
        ledger = postgres.url(asyncio.run(new_database(postgres)))
        environment = server_environment(
            folder / "server",
            vendor,
            MONGODB_CONNECTION_URI=asyncio.run(migrated_database(shared_mongo())),
            TIMESCALE_SERVICE_URL=ledger,
            QUEUE_CONNECTIONURL=broker.url,
            QUEUE_NAME=secrets.token_hex(6),
            OBJECT_STORE_URL=f"file://{folder}/files",
            PREFETCH_COUNT=str(prefetch),
            CONSUMER_STATUS="false",
        )
        server = stack.enter_context(running_server(environment))
        team = Workers({**environment, "DATA_DIR": str(folder / "data")}, folder)
        stack.callback(team.stop)
        for _ in range(workers):
            team.start()
        yield Plant(server, team, broker, vendor, ledger, f"batch-{secrets.token_hex(4)}")


def results(plant: Plant, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    answer = httpx.get(urljoin(plant.server.url, batch["results"]["url"]), timeout=60)
    answer.raise_for_status()
    return [orjson.loads(line) for line in answer.content.splitlines()]


def every_item_has_one_result(plant: Plant, batch: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    assert batch["state"] == "COMPLETED"
    assert batch["counts"]["succeeded"] == batch["counts"]["total"] == count
    found = results(plant, batch)
    assert [each["index"] for each in found] == list(range(count))
    assert [each["customId"] for each in found] == [f"n{number}" for number in range(count)]
    assert {each["completion"]["usage"]["outputTokens"] for each in found} == {TOKENS}
    assert len({each["completionId"] for each in found}) == count
    assert [node["completion"]["content"] for node in batch["items"]["nodes"]] == [
        each["completion"]["content"] for each in found[:2]
    ]
    return found


async def every_call_has_its_entry(plant: Plant, found: list[dict[str, Any]]) -> None:
    """Where a worker was killed, when its successor has taken up what it left."""
    tally = plant.vendor.tally("openai", plant.organisation)
    told = {each["completionId"] for each in found}
    async with asyncio.timeout(60):
        while True:  # what had to wait in the queue comes a little later
            entries = await rows(plant.ledger, _ENTRIES, plant.organisation)
            if len(entries) >= tally["calls"] and told <= {entry[0] for entry in entries}:
                break
            await asyncio.sleep(0.2)
    names = [entry[:2] for entry in entries]
    assert len(set(names)) == len(names), "an entry is there twice"
    exact = {entry[0]: entry[2:4] for entry in entries if not entry[4]}
    for each in found:
        usage = each["completion"]["usage"]
        assert exact[each["completionId"]] == (usage["inputTokens"], usage["outputTokens"])
    a_call = {(tally["input_tokens"] // tally["answered"], TOKENS)}
    assert {tuple(tokens) for tokens in exact.values()} == a_call, "as the vendor counts"
    assert len(found) <= len(exact) <= tally["answered"]
    assert all(entry[5] in ("abandoned", "cancelled") for entry in entries if entry[4])


def test_through_a_kill_and_a_restart_of_the_broker_every_item_has_one_result(vendor: Vendor, tmp_path: Path) -> None:
    with running_plant(tmp_path, vendor, workers=2) as plant:
        batch_id = plant.submit(300, f"[[tokens={TOKENS}]] [[delay=100]]")
        plant.until(batch_id, 40, within_s=60)
        plant.workers.kill_one()
        plant.until(batch_id, 90, within_s=60)
        plant.broker.stop()
        plant.broker.start()
        found = every_item_has_one_result(plant, plant.ended(batch_id, within_s=150), 300)
        asyncio.run(every_call_has_its_entry(plant, found))


@pytest.mark.soak
def test_ten_thousand_items_a_worker_killed_every_two_seconds(vendor: Vendor, tmp_path: Path) -> None:
    count, restarts = 10_000, [2_000, 5_000]
    with running_plant(tmp_path, vendor, workers=3) as plant:
        batch_id = plant.submit(count, f"[[tokens={TOKENS}]] [[delay=100]]")
        give_up = time.monotonic() + 3600
        while (batch := plant.batch(batch_id))["endedAt"] is None:
            assert time.monotonic() < give_up, batch
            time.sleep(2)
            if batch["counts"]["succeeded"] < 0.95 * count:
                plant.workers.kill_one()
            if restarts and batch["counts"]["succeeded"] > restarts[0]:
                restarts.pop(0)
                plant.broker.stop()
                plant.broker.start()
        assert not restarts
        found = every_item_has_one_result(plant, batch, count)
        asyncio.run(every_call_has_its_entry(plant, found))


def test_by_the_command_line_on_the_embedded_default(server: Server, tmp_path: Path) -> None:
    def batch(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(server.folder), "COLUMNS": "120"}
        environment["AI_MIDDLEWARE_TOKEN"] = server.token("cli-batches")
        return command("batch", *arguments, "--url", server.url, environment=environment)

    lines = [{"messages": [{"role": "USER", "content": f"[[tokens={number % 7 + 1}]]"}]} for number in range(30)]
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\n".join(map(orjson.dumps, lines)))
    asked = (str(file), "--model", "openai/gpt-4o-mini", "--label", "job=night", "--key", "k1")

    priced = batch("submit", *asked, "--dry-run")
    assert (priced.returncode, priced.stdout.startswith("30 items, at most 0.")) == (0, True), priced
    done = batch("submit", *asked, "--watch")
    assert done.returncode == 0, done.stderr
    batch_id, told = done.stdout.splitlines()
    assert told.startswith(f"{batch_id} COMPLETED: 30 succeeded of 30; 0.")
    assert "30/30" in done.stderr
    assert batch("submit", *asked).stdout == f"{batch_id}\n", "the same once more"
    assert batch_id in batch("list").stdout
    assert batch("show", batch_id).stdout == f"{told}\n"
    assert batch("cancel", batch_id).stdout == f"{told}\n"
    found = [orjson.loads(line) for line in batch("results", batch_id).stdout.splitlines()]
    assert [each["completion"]["usage"]["outputTokens"] for each in found] == [n % 7 + 1 for n in range(30)]

    file.write_text('{"messages": [{"role": "USER", "content": "a"}]}\n{"messages": [{"role": "NOBODY"}]}\n')
    wrong = batch("submit", *asked[:3])
    assert wrong.returncode == 1
    assert "line 2, messages.0.role" in wrong.stderr
    assert "NOBODY" not in wrong.stderr, "what was given is not repeated"
    checked = batch("submit", *asked[:3], "--dry-run")
    assert (checked.returncode, "line 2, messages.0.role" in checked.stderr) == (1, True)


def test_a_worker_tells_of_its_items_as_a_server_does_of_completions(vendor: Vendor, tmp_path: Path) -> None:
    with running_plant(tmp_path, vendor, workers=0) as plant:
        port = free_port()
        plant.workers.environment = {**plant.workers.environment, "INTERNAL_PORT": str(port)}
        plant.workers.start()
        plant.ended(plant.submit(5, f"[[tokens={TOKENS}]]"), within_s=60)
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
        assert sum(float(line.rpartition(" ")[2]) for line in completions_in(page)) == 5
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=30).text == "ready\n"


def completions_in(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("ai_requests_total{")]
