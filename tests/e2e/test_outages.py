"""The table of failures: each server is stopped, killed, frozen, slowed and cut, alone and with another, while
completions and streams run in two server processes. What is answered is booked once, and nothing is refused that need
not be."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.runtime import Runtime, open_runtime
from gateway.settings import Settings, load_settings
from gateway.stores import DATABASE_FILE
from persistence.migrations.sqlite import migrate

from .load import Load, all_is_booked
from .processes import Server, Vendor
from .site import Site, freeze, kill, slow, stop

SERVERS = ("MongoDB", "TimescaleDB", "Redis", "RabbitMQ")
REFUSING = ({"TimescaleDB", "RabbitMQ"}, {"TimescaleDB", "Redis"})
"""While both of the first are away new calls are refused, before a vendor is called; of the second, those with keys."""

NEARLY = {"files": 5, "threads": 5, "bytes": 10 * 2**20}
"""So much more is as much as before."""
Disturbance = Callable[..., None]

ALONE = [
    (kill, "TimescaleDB"),
    (freeze, "TimescaleDB"),
    (kill, "Redis"),
    (freeze, "Redis"),
    (stop, "RabbitMQ"),
    (kill, "MongoDB"),
]
TOGETHER = [
    (kill, "TimescaleDB", "RabbitMQ"),
    (freeze, "TimescaleDB", "Redis"),
    (stop, "MongoDB", "Redis"),
    (slow, *SERVERS),
]


def may_refuse(names: Collection[str]) -> bool:
    return any(both <= set(names) for both in REFUSING)


def name(case: tuple[Any, ...]) -> str:
    return "-".join([case[0].__name__, *case[1:]])


@pytest.mark.parametrize("case", [*ALONE, *TOGETHER], ids=name)
async def test_completions_go_on(site: Site, vendor: Vendor, case: tuple[Any, ...]) -> None:
    disturb, *names = case
    load = Load(site, f"outage-{secrets.token_hex(4)}")
    await load.through(partial(disturb, site, *names))
    assert load.refused == 0 or may_refuse(names)
    await all_is_booked(load, vendor)


async def test_nothing_is_left_open(site: Site, vendor: Vendor) -> None:
    """After a first outage, which opens what is needed later, no more of them adds a socket, a file or a thread; nor
    does memory grow."""
    organisation = f"outage-{secrets.token_hex(4)}"
    load = Load(site, organisation)
    await load.through(partial(kill, site, "Redis"))
    before = [holds(server) for server in site.servers]
    for _ in range(3):
        load = Load(site, organisation, load.answered)
        await load.through(partial(kill, site, "Redis"), answers=20)
    await all_is_booked(load, vendor)
    for server, held in zip(site.servers, before, strict=True):
        for kind, count in holds(server).items():
            assert count <= held[kind] + NEARLY[kind], kind


def holds(server: Server) -> dict[str, int]:
    process = psutil.Process(server.process.pid)
    return {"files": process.num_fds(), "threads": process.num_threads(), "bytes": process.memory_info().rss}


# Of a connection that breaks while it is closed, the broker's client leaves the closing itself to the collector.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. .coroutine object Connection.close:pytest.PytestUnraisableExceptionWarning"
)
async def test_no_task_and_no_socket_outlives_a_process(site: Site, tmp_path: Path) -> None:
    variables = {name: value for name, value in site.environments[0].items() if name in Settings.model_fields}
    settings = load_settings(**{**variables, "DATA_DIR": tmp_path})
    migrate(tmp_path / DATABASE_FILE)
    before = asyncio.all_tasks()
    async with open_runtime(settings) as runtime:
        await is_ready(runtime)
        running = len(asyncio.all_tasks())
        await asyncio.to_thread(kill, site, *SERVERS)
        await is_ready(runtime)
        async with asyncio.timeout(30):
            while len(asyncio.all_tasks()) > running:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == before
    async with asyncio.timeout(30):
        while sockets(site):  # noqa: ASYNC110  # MongoDB's client has a thread that closes its own half a second later
            await asyncio.sleep(0.05)


async def is_ready(runtime: Runtime) -> None:
    async with asyncio.timeout(60):
        while str(await runtime.readiness()) != "ready":  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.1)


def sockets(site: Site) -> Sequence[int]:
    """This process's own to the site's servers, by their ports."""
    ports = {way.port for way in site.ways.values()}
    found = psutil.Process().net_connections("tcp")
    return [each.raddr.port for each in found if each.status == psutil.CONN_ESTABLISHED and each.raddr.port in ports]


@pytest.mark.soak
async def test_many_outages(site: Site, vendor: Vendor) -> None:
    """Each server in each way, and each two of them, in an order that SEED gives; memory stays flat."""
    seed = int(os.environ.get("SEED", "1"))
    cases: list[tuple[Any, ...]] = [
        (disturb, *names)
        for disturb in (stop, kill, freeze, slow)
        for names in [*((each,) for each in SERVERS), *combinations(SERVERS, 2)]
    ]
    random.Random(seed).shuffle(cases)
    memory: list[list[int]] = []
    for case in [*cases, *cases]:
        disturb, *names = case
        load = Load(site, f"outage-{secrets.token_hex(4)}")
        await load.through(partial(disturb, site, *names), answers=200)
        assert load.refused == 0 or may_refuse(names), name(case)
        await all_is_booked(load, vendor)
        memory.append([psutil.Process(server.process.pid).memory_info().rss for server in site.servers])
    for first, last in zip(memory[len(cases) - 1], memory[-1], strict=True):
        assert last < first + 20 * 2**20, "as many outages once more, and it has grown"
