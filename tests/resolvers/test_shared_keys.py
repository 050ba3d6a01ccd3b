"""Idempotency keys over several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from persistence.memory import MemoryValues
from persistence.ports import StoreUnavailableError
from providers.types import Finished, FinishReason, TextDelta, Usage
from resolvers.errors import CompletionFailedError, ConflictError, ServiceUnavailableError
from resolvers.routing import CIRCUIT_FAILURES
from resolvers.running import RunningCompletions
from resolvers.shared_keys import AWAY_S, CLAIM_TIMEOUT_S, REMEMBERED_S, SharedKeys, open_shared_keys

from .scene import ALPHA, Scene

HI = [(TextDelta("hi"),), (Finished(FinishReason.STOP, usage=Usage(1, 1)),)]


class Away(MemoryValues):
    async def claim(self, organisation: str | None, key: str, value: str, *, seconds: float) -> str | None:
        raise StoreUnavailableError("no route")


class Silent(MemoryValues):
    asked = 0

    async def claim(self, organisation: str | None, key: str, value: str, *, seconds: float) -> str | None:
        self.asked += 1
        await asyncio.Event().wait()
        return None


@asynccontextmanager
async def sharing(scene: Scene, values: MemoryValues | None = None) -> AsyncIterator[Scene]:
    """Another process on the same ledger, or the first of several."""
    values = values or MemoryValues(asyncio.get_running_loop().time)
    async with open_shared_keys(values) as keys:
        yield process(scene, keys)


def process(scene: Scene, keys: SharedKeys | None) -> Scene:
    return replace(scene, services=replace(scene.services, running=RunningCompletions(), keys=keys))


async def test_a_key_is_used_once_whichever_process_is_asked(scene: Scene) -> None:
    scene.alpha.will(HI, HI)
    async with sharing(scene) as one:
        other = process(one, one.services.keys)
        answers = await asyncio.gather(
            one.complete(idempotency_key="k"), other.complete(idempotency_key="k"), return_exceptions=True
        )
    assert sorted(type(answer).__name__ for answer in answers) == ["Completion", "ConflictError"]
    assert len(scene.alpha.calls) == 1


async def test_a_key_that_nothing_was_sent_for_is_free_again(scene: Scene) -> None:
    async with sharing(scene) as one:
        for _ in range(CIRCUIT_FAILURES):
            scene.services.circuits.failed((ALPHA.provider, ALPHA.model, "1"), object())
        with pytest.raises(CompletionFailedError, match="left alone"):
            await one.complete(idempotency_key="k")
        scene.services.circuits.succeeded((ALPHA.provider, ALPHA.model, "1"))
        await asyncio.sleep(0)
        scene.alpha.will(HI)
        await one.complete(idempotency_key="k")


async def test_a_server_that_says_nothing_keeps_few_waiting_and_not_for_long(scene: Scene) -> None:
    scene.alpha.will(*[HI] * 5)
    loop = asyncio.get_running_loop()
    values = Silent(loop.time)
    async with sharing(scene, values) as one:
        for number, waited in enumerate((CLAIM_TIMEOUT_S, 0, 0)):
            begun = loop.time()
            await one.complete(idempotency_key=f"k{number}")
            assert loop.time() - begun == pytest.approx(waited, abs=0.1)
        assert values.asked == 1
        with pytest.raises(ConflictError):
            await one.complete(idempotency_key="k0")
        await asyncio.sleep(AWAY_S)
        await one.complete(idempotency_key="another")
    assert values.asked == 2


async def test_the_ledger_knows_a_key_that_the_processes_have_forgotten(scene: Scene) -> None:
    scene.alpha.will(HI)
    async with sharing(scene) as one:
        await one.complete(idempotency_key="k")
        await asyncio.sleep(REMEMBERED_S + 1)
        with pytest.raises(ConflictError):
            await one.complete(idempotency_key="k")


async def test_while_the_ledger_is_away_the_processes_remember(scene: Scene) -> None:
    scene.alpha.will(HI, HI)
    async with sharing(scene) as one:
        await one.complete(idempotency_key="used")
        scene.store.down = True
        await scene.services.ledger.probe()
        with pytest.raises(ConflictError):
            await one.complete(idempotency_key="used")
        with pytest.raises(ServiceUnavailableError):  # here there is no queue for its entry, but the key was free
            await one.complete(idempotency_key="new")
        scene.store.down = False
        await scene.services.ledger.probe()
        await one.complete(idempotency_key="new")


async def test_while_they_remember_nothing_the_ledger_has_to_know(scene: Scene) -> None:
    scene.alpha.will(HI)
    async with sharing(scene, Away(asyncio.get_running_loop().time)) as one:
        await one.complete(idempotency_key="k")
        with pytest.raises(ConflictError):
            await one.complete(idempotency_key="k")
        scene.store.down = True
        await scene.services.ledger.probe()
        with pytest.raises(ServiceUnavailableError, match="can't be read"):
            await one.complete(idempotency_key="new")
        scene.store.down = False
        await scene.services.ledger.probe()
