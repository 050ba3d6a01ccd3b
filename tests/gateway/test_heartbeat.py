"""What a worker's liveness is told by."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import pytest

from gateway.heartbeat import STUCK_AFTER_S, Heartbeat, add_liveness
from gateway.internal import internal_pages, internal_server
from gateway.listening import listen
from persistence.queue_records import Job


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_job_in_hand_for_too_long_is_trouble_until_it_ends() -> None:
    clock, goes_on = Clock(), asyncio.Event()
    heartbeat = Heartbeat(clock)

    async def handle(jobs: Sequence[Job]) -> None:
        await goes_on.wait()

    handling = asyncio.ensure_future(heartbeat.over({"kind": handle})["kind"]([]))
    await asyncio.sleep(0)
    clock.now += STUCK_AFTER_S - 1
    assert heartbeat.trouble() is None
    clock.now += 1
    assert heartbeat.trouble() == "jobs have been in hand for 900 s"
    goes_on.set()
    await handling
    assert heartbeat.trouble() is None
    clock.now += 10 * STUCK_AFTER_S
    assert heartbeat.trouble() is None, "who waits for jobs is alive"


async def test_a_job_that_fails_is_not_in_hand_any_more() -> None:
    clock = Clock()
    heartbeat = Heartbeat(clock)

    async def handle(jobs: Sequence[Job]) -> None:
        raise ValueError("never")

    with pytest.raises(ValueError, match="never"):
        await heartbeat.over({"kind": handle})["kind"]([])
    clock.now += STUCK_AFTER_S
    assert heartbeat.trouble() is None


async def test_it_is_told_on_a_port() -> None:
    clock = Clock()
    heartbeat = Heartbeat(clock)
    pages = internal_pages()
    add_liveness(pages, heartbeat)
    with listen("127.0.0.1", 0, variable="INTERNAL_PORT") as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/healthcheck"
        async with internal_server(pages, listener), httpx.AsyncClient() as client:
            answer = await client.get(url)
            assert (answer.status_code, answer.text) == (200, "alive\n")
            handling = asyncio.ensure_future(heartbeat.over({"kind": _endless})["kind"]([]))
            await asyncio.sleep(0)
            clock.now += STUCK_AFTER_S
            answer = await client.get(url)
            assert (answer.status_code, answer.text) == (503, "jobs have been in hand for 900 s\n")
            handling.cancel()
            await asyncio.wait([handling])


async def _endless(jobs: Sequence[Job]) -> None:
    await asyncio.Event().wait()
