"""The table of failures: each server is stopped, killed, frozen, slowed and cut, alone and with another, while
completions and streams run in two server processes. What is answered is booked once, and nothing is refused that need
not be."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import pytest

from .load import Load, all_is_booked
from .processes import Server, Vendor
from .site import Site, freeze, kill, slow, stop

LEDGER_AND_QUEUE = {"TimescaleDB", "RabbitMQ"}
"""While both are away new calls are refused, before a vendor is called."""

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
    (slow, "TimescaleDB", "Redis", "RabbitMQ"),
]


def name(case: tuple[Any, ...]) -> str:
    return "-".join([case[0].__name__, *case[1:]])


@pytest.mark.parametrize("case", [*ALONE, *TOGETHER], ids=name)
async def test_completions_go_on(site: Site, vendor: Vendor, case: tuple[Any, ...]) -> None:
    disturb, *names = case
    load = Load(site, f"outage-{secrets.token_hex(4)}")
    await load.through(partial(disturb, site, *names))
    if not set(names) >= LEDGER_AND_QUEUE:
        assert load.refused == 0
    await all_is_booked(load, vendor)


async def test_nothing_is_left_open(site: Site, vendor: Vendor) -> None:
    """After a first outage, which opens what is needed later, no more of them adds a socket, a file or a thread."""
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
            assert count <= held[kind] + 5, kind


def holds(server: Server) -> dict[str, int]:
    process = psutil.Process(server.process.pid)
    return {"files": process.num_fds(), "threads": process.num_threads()}
