"""`make bench-batches`: how many items of a batch a worker brings to their ends, and what each costs us; writes its
chapter of results.md."""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import psutil

from tests.e2e.processes import Server, Vendor, post, running_server, running_vendor, server_environment
from tests.e2e.test_batches import SUBMIT, UPLOAD, running_plant

from .results import write_chapter

PROMPT = "[[tokens=30]]"
_STATE = "query ($id: ID!) { batch(id: $id) { endedAt counts { total succeeded } } }"

_PAGE = """\
# What batches cost

`make bench-batches`, Python {python}, {machine}, {cores} cores, other work on them (a load of {load:.1f}). {items:,}
items of 30 tokens each, answered at once by a fake vendor on the same machine: all that takes time is ours, the
servers' and the vendor's. CPU is the process's own, by the kernel's accounting.

| | lines a second, submitted | CPU µs a line | items a second, of one worker | CPU µs an item |
|---|---|---|---|---|
{rows}
"""


@dataclass
class Measured:
    """`submitting` and `working` in seconds; of each the CPU, in seconds, of the process that does it."""

    where: str
    items: int
    submitting: float
    submitting_cpu: float
    working: float
    working_cpu: float

    def row(self) -> str:
        figures = (
            f"{self.items / self.submitting:,.0f}",
            f"{self.submitting_cpu / self.items * 1e6:,.0f}",
            f"{self.items / self.working:,.0f}",
            f"{self.working_cpu / self.items * 1e6:,.0f}",
        )
        return f"| {self.where} | {' | '.join(figures)} |"


def cpu(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def measured(where: str, server: Server, worker: int, items: int) -> Measured:
    """`worker` is the process that works on the items."""
    token = server.token("benchmark")
    link = post(server, token, UPLOAD)["data"]["uploadBatchFile"]
    line = orjson.dumps({"model": "openai/gpt-4o-mini", "messages": [{"role": "USER", "content": PROMPT}]}) + b"\n"
    httpx.put(f"http://127.0.0.1:{server.port}{link['url']}", content=line * items, timeout=60).raise_for_status()
    began, submitter, before = time.perf_counter(), cpu(server.process.pid), cpu(worker)
    answer = post(server, token, SUBMIT, {"input": {"file": link["file"]}})
    submitted, submitter_cpu = time.perf_counter(), cpu(server.process.pid)
    batch = answer["data"]["submitBatch"]["batch"]["id"]
    between = submitter_cpu if worker == server.process.pid else before
    while post(server, token, _STATE, {"id": batch})["data"]["batch"]["endedAt"] is None:
        time.sleep(0.5)
    ended = time.perf_counter()
    return Measured(
        where, items, submitted - began, submitter_cpu - submitter, ended - submitted, cpu(worker) - between
    )


def embedded(folder: Path, vendor: Vendor, items: int) -> Measured:
    with running_server(server_environment(folder, vendor)) as server:
        return measured("embedded: SQLite, the worker inside the server", server, server.process.pid, items)


def on_servers(folder: Path, vendor: Vendor, items: int) -> Measured:
    with running_plant(folder, vendor, workers=1, prefetch=50) as plant:
        time.sleep(5)  # for the worker to be there
        [worker] = plant.workers.running
        return measured("MongoDB, RabbitMQ, PostgreSQL; a worker process", plant.server, worker.pid, items)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=3_000)
    items = parser.parse_args().items
    load = psutil.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, running_vendor() as vendor:
        found = [embedded(Path(folder) / "embedded", vendor, items), on_servers(Path(folder), vendor, items)]
    write_chapter(
        _PAGE.format(
            python=platform.python_version(),
            machine=platform.machine(),
            cores=psutil.cpu_count(),
            load=load,
            items=items,
            rows="\n".join(each.row() for each in found),
        )
    )


if __name__ == "__main__":
    main()
