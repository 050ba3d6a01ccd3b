"""`kill -9` at any moment: what was answered has its entries, none twice, and no call to a vendor goes unbooked."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .documents import COMPLETE, RECORDS
from .processes import Server, Vendor, post, running_server, server_environment

ORGANISATION = "killed"
MODEL = "gpt-4o-mini"


async def load_until_killed(server: Server, answered: dict[str, dict[str, Any]], kill_after: int) -> None:
    """Completions, sixteen at a time, until `kill_after` were answered; upon the last one's heels the server dies."""
    killed = asyncio.Event()
    count = 0

    async def client(session: aiohttp.ClientSession) -> None:
        nonlocal count
        while not killed.is_set():
            prompt = f"[[tokens={random.randint(1, 20)}]] [[delay={random.randint(0, 30)}]]"
            asked = {"model": f"openai/{MODEL}", "messages": [{"role": "USER", "content": prompt}]}
            try:
                async with session.post(server.url, json={"query": COMPLETE, "variables": {"input": asked}}) as answer:
                    completion = (await answer.json())["data"]["complete"]
            except (aiohttp.ClientError, ConnectionError):
                assert killed.is_set(), "the server broke before it was killed"
                return
            answered[completion["id"]] = completion
            count += 1
            if count == kill_after:
                server.process.kill()
                killed.set()

    headers = {"authorization": f"Bearer {server.token(ORGANISATION)}"}
    async with aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
        for _ in range(16):
            group.create_task(client(session))
    server.process.wait()


def records(server: Server) -> dict[str, dict[str, Any]]:
    """Every completion of the ledger, page by page."""
    found: dict[str, dict[str, Any]] = {}
    after = None
    token = server.token(ORGANISATION)
    while True:
        page = post(server, token, RECORDS, {"first": 100, "after": after})["data"]["completions"]
        for node in page["nodes"]:
            assert node["id"] not in found, "a completion is listed twice"
            found[node["id"]] = node
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


async def kill_again_and_again(kills: int, folder: Path, vendor: Vendor) -> None:
    environment = server_environment(folder, vendor)
    answered: dict[str, dict[str, Any]] = {}
    before = vendor.tally("openai", MODEL)
    for _ in range(kills):
        with running_server(environment) as server:
            await load_until_killed(server, answered, random.randint(1, 40))
    with running_server(environment) as server:
        booked = records(server)
    for completion_id, completion in answered.items():
        record = booked[completion_id]
        assert record["usage"] == {key: completion["usage"][key] for key in record["usage"]}
        assert [attempt["outcome"] for attempt in record["attempts"]] == ["SUCCEEDED"]
    exact = [record for record in booked.values() if not record["usage"]["estimated"]]
    after = vendor.tally("openai", MODEL)
    calls = after["calls"] - before.get("calls", 0)
    assert sum(len(record["attempts"]) for record in booked.values()) >= calls, "a call to the vendor went unbooked"
    assert len(exact) >= len(answered)
    abandoned = [record for record in booked.values() if record["outcome"] == "ABANDONED"]
    assert all(record["usage"]["estimated"] for record in abandoned)
    assert abandoned, "no kill met work in flight: this test shows nothing"


async def test_five_kills(vendor: Vendor, tmp_path: Path) -> None:
    await kill_again_and_again(5, tmp_path, vendor)


@pytest.mark.soak
async def test_a_hundred_kills(vendor: Vendor, tmp_path: Path) -> None:
    await kill_again_and_again(100, tmp_path, vendor)
