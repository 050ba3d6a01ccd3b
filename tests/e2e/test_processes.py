"""Several server processes on one port: what becomes of them when one dies, can't start, or loses its master."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from gateway.serving import NEEDED_BY_SEVERAL
from persistence.inflight import FILE_NAME
from tests.servers.ports import free_port

from .callers import asking
from .documents import COMPLETE
from .load import entries
from .processes import Server, Vendor, post, running_server, server_environment
from .scraping import scrape
from .site import Site
from .test_cancellation import open_calls, until

PROCESSES = 2
SLOW = 200
HEAD_TIMEOUT_S = 2.0


@pytest.fixture
def model() -> str:
    return f"processes-{secrets.token_hex(4)}"


@pytest.fixture
def environment(site: Site, tmp_path: Path) -> dict[str, str]:
    return {
        **site.environments[0],
        "ENVIRONMENT": "PRODUCTION",
        "MAX_WORKERS": str(PROCESSES),
        "INTERNAL_PORT": str(free_port()),
        "DATA_DIR": str(tmp_path / "data"),
    }


def children(server: Server) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(server.process.pid).children()
    return found


def readiness(environment: dict[str, str]) -> str:
    return httpx.get(f"http://127.0.0.1:{environment['INTERNAL_PORT']}/readyz", timeout=30).text


def complete(server: Server, model: str, prompt: str) -> dict[str, object]:
    return post(server, server.token(model), COMPLETE, {"input": asking(model, prompt)})


async def begun(server: Server, vendor: Vendor, model: str, count: int) -> Sequence[asyncio.Task[dict[str, object]]]:
    tasks = [asyncio.create_task(asyncio.to_thread(complete, server, model, "[[hang=0]]")) for _ in range(count)]
    await until(lambda: open_calls(vendor, "openai", model) == count, within_s=30)
    return tasks


async def booked(site: Site, organisation: str, count: int) -> bool:
    """Each as one entry, and estimated."""
    found = await entries(site, organisation)
    return len(found) == count and all(values[0] == values[3] == 1 for values in found.values())


async def test_a_process_that_dies_is_replaced_and_what_it_had_in_flight_is_booked(
    site: Site, environment: dict[str, str], vendor: Vendor, model: str
) -> None:
    with running_server(environment) as server:
        before = children(server)
        assert len(before) == PROCESSES
        assert psutil.Process(server.process.pid).num_threads() == 1, "it forks: no thread may be there that it loses"
        assert readiness(environment) == "ready\n"
        running = await begun(server, vendor, model, 4)
        for process in before:
            process.kill()
        await asyncio.wait(running)
        await until(lambda: len(set(children(server)) - set(before)) == PROCESSES, within_s=30)
        await until(lambda: readiness(environment) == "ready\n", within_s=30)
        assert complete(server, f"{model}-2", "[[tokens=1]]")["data"]
        async with asyncio.timeout(30):
            while not await booked(site, model, 4):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.1)


async def test_processes_count_together_and_what_a_dead_one_counted_stands(
    environment: dict[str, str], model: str
) -> None:
    def told(name: str) -> float:
        return scrape(int(environment["INTERNAL_PORT"])).value(name)

    with running_server(environment) as server:
        for _ in range(6):
            assert complete(server, model, "[[tokens=1]]")["data"]
        assert (told("ai_requests_total"), told("ai_middleware_processes")) == (6, PROCESSES)
        children(server)[0].kill()
        await until(lambda: len(children(server)) == told("ai_middleware_processes") == PROCESSES, within_s=60)
        assert told("ai_requests_total") == 6


async def slow_head(server: Server, opened: asyncio.Barrier) -> float:
    """Sends a byte now and then; how many seconds the server looks on."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(b"POST /graphql HTTP/1.1\r\nhost: x\r\nx-padding: ")
        await opened.wait()
        begun, ended = loop.time(), asyncio.create_task(reader.read())
        while not (await asyncio.wait([ended], timeout=0.2))[0]:
            writer.write(b"y")
        with suppress(ConnectionResetError):
            assert await ended == b""
        return loop.time() - begun
    finally:
        writer.close()


async def test_slow_heads_are_cut_off_by_each_process_and_others_are_served_meanwhile(
    environment: dict[str, str], model: str
) -> None:
    quicker = f"from gateway import connections\nconnections.HEAD_TIMEOUT_S = {HEAD_TIMEOUT_S}"
    with running_server(environment, first=quicker) as server:
        opened = asyncio.Barrier(SLOW + 1)
        slow = [asyncio.create_task(slow_head(server, opened)) for _ in range(SLOW)]
        await opened.wait()
        served = 0
        async with asyncio.timeout(60):
            while not all(each.done() for each in slow):
                assert (await asyncio.to_thread(complete, server, model, "[[tokens=1]]"))["data"]
                served += 1
        assert served > 1
        assert max(await asyncio.gather(*slow)) < HEAD_TIMEOUT_S + 10, "each byte won it more time"


async def test_one_process_books_what_several_left(
    site: Site, environment: dict[str, str], vendor: Vendor, model: str
) -> None:
    with running_server(environment) as server:
        group = [psutil.Process(server.process.pid), *children(server)]
        running = await begun(server, vendor, model, 6)
        for process in group:  # the master first, which would replace them
            process.kill()
        await asyncio.wait(running)
        psutil.wait_procs(group, timeout=30)
    assert any(log.stat().st_size for log in Path(environment["DATA_DIR"]).rglob(FILE_NAME))  # noqa: ASYNC240  # quick
    with running_server({**environment, "MAX_WORKERS": "1"}):
        assert await booked(site, model, 6), "before it takes a call"


async def test_processes_end_with_a_master_that_is_killed(environment: dict[str, str]) -> None:
    with running_server(environment) as server:
        group = children(server)
        server.process.kill()
        gone, alive = await asyncio.to_thread(psutil.wait_procs, group, timeout=30)
        assert len(gone) == PROCESSES, alive


def test_what_keeps_a_process_from_starting_is_one_line_and_ends_the_server(environment: dict[str, str]) -> None:
    data = Path(environment["DATA_DIR"])
    data.mkdir()
    (data / "process-1").write_text("not a folder")
    done = served(environment)
    assert done.returncode == 2
    line, *more = done.stderr.splitlines()
    assert not more, done.stderr
    assert line.startswith("ai-middleware: DATA_DIR: ")
    assert "process-1" in line
    assert done.stdout == ""


def test_several_processes_with_nothing_to_share_are_refused(tmp_path: Path) -> None:
    done = served(server_environment(tmp_path, None, MAX_WORKERS="4"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("ai-middleware: MAX_WORKERS: 4 processes ")
    assert line.endswith(f"set {', '.join(NEEDED_BY_SEVERAL)}, or MAX_WORKERS=1")
    assert list(tmp_path.iterdir()) == []


def served(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "serve"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
