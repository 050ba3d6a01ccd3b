"""What `/readyz` says of the servers behind a process."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway import readiness as module
from gateway.readiness import Dependency, readiness


class Server:
    def __init__(self, said: str | None = None) -> None:
        self.said = said
        self.answers = True

    async def look(self) -> str | None:
        if not self.answers:
            await asyncio.Event().wait()
        return self.said


async def told(*dependencies: Dependency) -> str:
    return str(await readiness([], dependencies))


async def test_one_that_answered_once_is_spared() -> None:
    server = Server("away")
    dependency = Dependency("Redis", server.look, spared=True)
    assert await told(dependency) == "missing: Redis (away)"
    server.said = None
    assert await told(dependency) == "ready"
    server.said = "away again"
    assert await told(dependency) == "ready, without Redis (away again)"


async def test_one_that_is_needed_is_missed() -> None:
    server = Server()
    dependency = Dependency("MongoDB", server.look, spared=False)
    assert await told(dependency) == "ready"
    server.said = "away"
    assert await told(dependency) == "missing: MongoDB (away)"


async def test_one_that_says_nothing_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_TIMEOUT_S", 0.2)
    one, other = Server(), Server()
    dependencies = [Dependency("Redis", one.look, spared=True), Dependency("RabbitMQ", other.look, spared=True)]
    assert await told(*dependencies) == "ready"
    one.answers = other.answers = False
    begun = time.monotonic()
    assert await told(*dependencies) == (
        "ready, without Redis (no answer within 0.2 s), RabbitMQ (no answer within 0.2 s)"
    )
    assert time.monotonic() - begun < 5
