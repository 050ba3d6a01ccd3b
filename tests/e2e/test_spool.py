"""Ledger and queue both away: what is in flight is answered and spooled, nothing new is begun, and what a process had
spooled that is killed then is booked by its next start, each entry once."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

from .documents import COMPLETE
from .load import Load, all_is_booked
from .processes import Server, Vendor, post, running_server
from .site import Site, readiness
from .test_cancellation import open_calls, until

GONE = ("TimescaleDB", "RabbitMQ")


def complete(server: Server, organisation: str, prompt: str) -> dict[str, Any]:
    asked = {"model": f"openai/{organisation}", "messages": [{"role": "USER", "content": prompt}]}
    return post(server, server.token(organisation), COMPLETE, {"input": asked})


async def begun(server: Server, vendor: Vendor, organisation: str, count: int) -> list[asyncio.Task[dict[str, Any]]]:
    """So many completions that the vendor has got, and takes a while over."""
    running = [
        asyncio.create_task(asyncio.to_thread(complete, server, organisation, f"[[delay=4000]] [[tokens={number}]]"))
        for number in range(5, 5 + count)
    ]
    await until(lambda: open_calls(vendor, "openai", organisation) == count)
    return running


async def test_what_was_spooled_is_booked_by_the_next_start(site: Site, vendor: Vendor, tmp_path: Path) -> None:
    load = Load(site, f"spool-{secrets.token_hex(4)}")
    environment = {**site.environments[0], "DATA_DIR": str(tmp_path / "data")}
    with running_server(environment) as server:
        running = await begun(server, vendor, load.organisation, 3)
        for name in GONE:
            await asyncio.to_thread(site.parts[name].kill)
        answers = await asyncio.gather(*running)
        load.answered = {answer["data"]["complete"]["id"]: answer["data"]["complete"] for answer in answers}
        await refuses(server, vendor, load.organisation, calls=3)
        server.process.kill()
        server.process.wait()
    with running_server(environment) as server:
        await refuses(server, vendor, load.organisation, calls=3)
        for name in GONE:
            await asyncio.to_thread(site.parts[name].start)
        await all_is_booked(load, vendor)


async def test_what_was_spooled_is_booked_by_the_same_process(site: Site, vendor: Vendor) -> None:
    load = Load(site, f"spool-{secrets.token_hex(4)}")
    server = site.servers[0]
    running = await begun(server, vendor, load.organisation, 3)
    for name in GONE:
        await asyncio.to_thread(site.parts[name].kill)
    answers = await asyncio.gather(*running)
    load.answered = {answer["data"]["complete"]["id"]: answer["data"]["complete"] for answer in answers}
    await refuses(server, vendor, load.organisation, calls=3)
    for name in GONE:
        await asyncio.to_thread(site.parts[name].start)
    await all_is_booked(load, vendor)


async def refuses(server: Server, vendor: Vendor, organisation: str, *, calls: int) -> None:
    """Before the vendor is called, and says so."""
    status, text = await asyncio.to_thread(readiness, server)
    assert (status, "missing: ledger" in text) == (503, True)
    answer = await asyncio.to_thread(complete, server, organisation, "[[tokens=1]]")
    assert answer["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
    assert vendor.tally("openai", organisation)["calls"] == calls
