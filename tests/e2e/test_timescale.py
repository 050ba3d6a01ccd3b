"""The server with its ledger on a real PostgreSQL, which is killed, stopped and frozen while completions run: they go
on, and what was answered has its entries, none twice. Entries wait in the embedded queue meanwhile."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import httpx
import psutil
import pytest

from tests.servers.postgres import (
    PASSWORD,
    Postgres,
    empty_database,
    migrated_database,
    new_database,
    rows,
    running_postgres,
    small_disk,
)

from .documents import COMPLETE
from .processes import Server, Vendor, post, running_server, server_environment
from .test_kills import ORGANISATION, records

MODEL = "gpt-4o-mini"
USAGE = """query { usage(input: {since: "2020-01-01T00:00:00Z", until: "2100-01-01T00:00:00Z"}) {
    totals { completions attempts outputTokens } } }"""

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ~ 'test_'"


@pytest.fixture(scope="module")
def postgres() -> Any:
    with running_postgres() as started:
        yield started


@pytest.fixture
async def database(postgres: Postgres) -> AsyncIterator[str]:
    async with migrated_database(postgres) as url:
        yield url


def environment(folder: Path, vendor: Vendor, url: str) -> dict[str, str]:
    return server_environment(folder, vendor, TIMESCALE_SERVICE_URL=url, TIMESCALE_TIMEOUT_S="1")


def readiness(server: Server) -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/readyz", timeout=30)
    return answer.status_code, answer.text


def ready(server: Server) -> None:
    until = time.monotonic() + 30
    while (found := readiness(server)) != (200, "ready\n"):
        assert time.monotonic() < until, found


def command(variables: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], env=dict(variables), capture_output=True, text=True, check=False
    )


def complete(server: Server, text: str = "hello") -> dict[str, Any]:
    asked = {"model": f"openai/{MODEL}", "messages": [{"role": "USER", "content": text}]}
    return post(server, server.token(ORGANISATION), COMPLETE, {"input": asked})


def code(answer: dict[str, Any]) -> str:
    found: str = answer["errors"][0]["extensions"]["code"]
    return found


async def run_through(server: Server, disturb: Callable[[], Any], answers: int) -> dict[str, dict[str, Any]]:
    """Completions, eight at a time. After a third of `answers` comes the disturbance, in a thread of its own; it ends,
    and then the rest have to come."""
    answered: dict[str, dict[str, Any]] = {}
    third, enough, disturbed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def client(session: aiohttp.ClientSession) -> None:
        asked = {"model": f"openai/{MODEL}", "messages": [{"role": "USER", "content": "[[tokens=5]] [[delay=20]]"}]}
        while not enough.is_set():
            async with session.post(server.url, json={"query": COMPLETE, "variables": {"input": asked}}) as answer:
                body = await answer.json()
            assert "errors" not in body
            completion = body["data"]["complete"]
            answered[completion["id"]] = completion
            if len(answered) >= answers // 3:
                third.set()
            if disturbed.is_set() and len(answered) >= answers:
                enough.set()

    async def disturber() -> None:
        await third.wait()
        await asyncio.to_thread(disturb)
        disturbed.set()

    headers = {"authorization": f"Bearer {server.token(ORGANISATION)}"}
    async with (
        asyncio.timeout(90),
        aiohttp.ClientSession(headers=headers) as session,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(disturber())
        for _ in range(8):
            group.create_task(client(session))
    return answered


async def all_is_booked(server: Server, url: str, answered: dict[str, dict[str, Any]], calls: int) -> None:
    """Each answer has its record with its figures; each call to the vendor has one entry; reports agree with them."""
    ready(server)
    booked = await asyncio.to_thread(drained, server, answered)
    for completion_id, completion in answered.items():
        record = booked[completion_id]
        assert record["usage"] == {key: completion["usage"][key] for key in record["usage"]}
    connection = await asyncpg.connect(url)
    try:
        attempts, completions, tokens = await connection.fetchrow(
            "SELECT count(*), count(DISTINCT completion_id), sum(output_tokens) FROM ledger_entries"
        )
    finally:
        await connection.close()
    assert attempts == calls
    totals = post(server, server.token(ORGANISATION), USAGE)["data"]["usage"]["totals"]
    assert totals == {"completions": completions, "attempts": attempts, "outputTokens": int(tokens)}


def drained(server: Server, answered: Collection[str]) -> dict[str, dict[str, Any]]:
    """The records, when all of these are among them."""
    until = time.monotonic() + 40
    while not set(answered) <= (booked := records(server)).keys():
        assert time.monotonic() < until, "entries still wait"
        time.sleep(0.2)
    return booked


def kill(postgres: Postgres) -> None:
    postgres.kill()
    postgres.start()


def stop(postgres: Postgres) -> None:
    postgres.stop()
    postgres.start()


def freeze(postgres: Postgres) -> None:
    """For longer than a statement may take."""
    with postgres.frozen():
        time.sleep(5)


def slow_down(postgres: Postgres) -> None:
    """It does its work in a tenth of the time."""
    for _ in range(20):
        with postgres.frozen():
            time.sleep(0.18)
        time.sleep(0.02)


def cut(postgres: Postgres) -> None:
    for _ in range(10):
        asyncio.run(
            rows(postgres.url(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ~ 'test_'")
        )
        time.sleep(0.1)


@dataclass(frozen=True)
class Steady:
    """A server that outlives what is done to its database. `calls`: of the vendor, before it started."""

    server: Server
    url: str
    calls: int


@pytest.fixture(scope="module")
def steady(vendor: Vendor, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steady]:
    url = postgres.url(asyncio.run(new_database(postgres)))
    calls = vendor.tally("openai", MODEL).get("calls", 0)
    with running_server(environment(tmp_path_factory.mktemp("steady"), vendor, url)) as server:
        yield Steady(server, url, calls)


@pytest.mark.parametrize("disturb", [kill, stop, freeze, slow_down, cut])
async def test_nothing_answered_is_lost_or_doubled(
    vendor: Vendor, postgres: Postgres, steady: Steady, disturb: Callable[[Postgres], None]
) -> None:
    answered = await run_through(steady.server, lambda: disturb(postgres), 100)
    calls = vendor.tally("openai", MODEL)["calls"] - steady.calls
    await all_is_booked(steady.server, steady.url, answered, calls)
    assert PASSWORD not in steady.server.log()


async def test_a_disk_that_is_full_for_a_while(vendor: Vendor, tmp_path: Path) -> None:
    before = vendor.tally("openai", MODEL).get("calls", 0)
    with small_disk(192) as disk, running_postgres(disk) as postgres:
        async with migrated_database(postgres) as database:
            with running_server(environment(tmp_path / "data", vendor, database)) as server:
                answered = await run_through(server, lambda: fill_up(disk, server, postgres), 150)
                calls = vendor.tally("openai", MODEL)["calls"] - before
                await all_is_booked(server, database, answered, calls)
                assert "DiskFullError" in server.log()


def fill_up(disk: Path, server: Server, postgres: Postgres) -> None:
    """Until nothing can be written; then there is room again. It may have ended for the want of it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    until = time.monotonic() + 30
    while readiness(server)[1] == "ready\n" and "DiskFullError" not in server.log():
        assert time.monotonic() < until, "the disk is full, and nothing is wrong"
    filler.unlink()
    if not psutil.pid_exists(postgres.pid):
        postgres.start()


async def test_both_are_killed_and_what_waits_is_booked_when_it_is_back(
    vendor: Vendor, postgres: Postgres, database: str, tmp_path: Path
) -> None:
    variables = environment(tmp_path, vendor, database)
    before = vendor.tally("openai", MODEL).get("calls", 0)
    with running_server(variables) as server:
        answered = [complete(server)]
        postgres.kill()
        answered += [complete(server, f"[[tokens={count}]]") for count in (7, 8, 9)]
        status, text = readiness(server)
        assert (status, "ready, without TimescaleDB" in text) == (200, True)
        assert code(post(server, server.token(ORGANISATION), USAGE)) == "SERVICE_UNAVAILABLE"
        server.process.kill()
        server.process.wait()
    with running_server(variables) as server:
        status, text = readiness(server)
        assert (status, "missing: TimescaleDB" in text) == (503, True), "it can't know whether it would ever answer"
        answered.append(complete(server))
        postgres.start()
        done = {answer["data"]["complete"]["id"]: answer["data"]["complete"] for answer in answered}
        calls = vendor.tally("openai", MODEL)["calls"]
        await all_is_booked(server, database, done, calls - before)


async def test_a_server_writes_nothing_before_the_schema_is_there(
    vendor: Vendor, postgres: Postgres, tmp_path: Path
) -> None:
    async with empty_database(postgres) as url:
        variables = environment(tmp_path, vendor, url)
        with running_server(variables) as server:
            status, text = readiness(server)
            assert (status, "TimescaleDB (the database has no schema" in text) == (503, True)
            early = complete(server)["data"]["complete"]["id"]
            done = command(variables, "migrate")
            assert (done.returncode, "TimescaleDB is up to date" in done.stdout) == (0, True)
            ready(server)
            late = complete(server)["data"]["complete"]["id"]
            assert drained(server, [early, late])
        seeded = command(variables, "dev", "seed-usage", "--rows", "500")
        assert (seeded.returncode, "500 entries" in seeded.stdout) == (0, True)


def test_what_can_t_be_migrated_is_one_line_without_the_address(tmp_path: Path) -> None:
    variables = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)}
    variables["TIMESCALE_SERVICE_URL"] = f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"
    done = command(variables, "migrate")
    assert done.returncode == 2
    assert "TIMESCALE_SERVICE_URL: PostgreSQL: ConnectionRefusedError" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
