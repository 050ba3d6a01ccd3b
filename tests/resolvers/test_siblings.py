"""Cancelling what runs in another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace

import orjson
import pytest

from persistence.memory import MemoryEvents
from persistence.ports import StoreUnavailableError
from providers.types import Finished, FinishReason, TextDelta, Usage
from resolvers import heeding
from resolvers import siblings as module
from resolvers.completions import cancel
from resolvers.errors import NotFoundError, ServiceUnavailableError
from resolvers.running import Running, RunningCompletions
from resolvers.siblings import Cancelled, Siblings, open_siblings
from resolvers.types import CompletionRef

from .scene import ACME, Scene

BY_ID = CompletionRef(id="cmp_1")


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Siblings, RunningCompletions, RunningCompletions]]:
    events, here, there = MemoryEvents(), RunningCompletions(), RunningCompletions()
    async with open_siblings(events, here) as asking, open_siblings(events, there):
        yield asking, here, there


@asynccontextmanager
async def running_in(process: RunningCompletions) -> AsyncIterator[asyncio.Task[bool]]:
    """A completion; the task tells whether it was cancelled, once it is."""
    began = asyncio.Event()

    async def run() -> bool:
        running = None
        with suppress(TimeoutError), process.claim("acme", "k", "cmp_1"):
            async with asyncio.timeout(60) as deadline:
                running = Running("cmp_1", deadline)
                process.add("acme", running)
                began.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    process.remove("acme", running)
        return running is not None and running.cancelled

    task = asyncio.create_task(run())
    await began.wait()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("ref", [BY_ID, CompletionRef(idempotency_key="k")])
async def test_what_runs_elsewhere_is_cancelled(ref: CompletionRef) -> None:
    async with two() as (asking, _, there), running_in(there) as completion:
        assert await asking.cancel("acme", ref) == Cancelled("cmp_1", cancelled=True)
        assert await completion


async def test_what_another_organisation_runs_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.05)
    async with two() as (asking, _, there), running_in(there) as completion:
        assert await asking.cancel("other", BY_ID) is None
        assert not completion.done()


class Frozen(MemoryEvents):
    """Takes what is published when it thaws."""

    def __init__(self) -> None:
        super().__init__()
        self.thawed = asyncio.Event()

    async def publish(self, channel: str, message: str) -> None:
        await self.thawed.wait()
        await super().publish(channel, message)


async def test_an_order_that_nobody_could_be_given_is_told_and_not_obeyed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    events, there = Frozen(), RunningCompletions()
    async with (
        open_siblings(events, RunningCompletions()) as asking,
        open_siblings(events, there) as other,
        running_in(there) as run,
    ):
        with pytest.raises(StoreUnavailableError, match="could not be asked"):
            await asking.cancel("acme", BY_ID)
        held_up = {"question": "q", "answer_to": "x", "organisation": "acme", "id": "cmp_1", "key": None}
        now[0] += 60
        await other.obey(orjson.dumps({**held_up, "until": 100.0 + module.ORDER_S}).decode())
        assert not run.done()


async def test_nobody_is_left_when_it_is_closed() -> None:
    before = asyncio.all_tasks()
    async with two():
        assert len(asyncio.all_tasks()) == len(before) + 4
    assert asyncio.all_tasks() == before


class Away(MemoryEvents):
    """A server that is not there until `back`."""

    back = False

    async def publish(self, channel: str, message: str) -> None:
        if not self.back:
            raise StoreUnavailableError("away")
        await super().publish(channel, message)

    def listen(self, channel: str) -> AbstractAsyncContextManager[AsyncGenerator[str, None]]:
        if not self.back:
            raise StoreUnavailableError("away")
        return super().listen(channel)


async def test_it_is_opened_while_the_server_is_away_and_listens_once_that_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heeding, "RETRY_S", 0)
    events, there = Away(), RunningCompletions()
    async with open_siblings(events, RunningCompletions()) as asking, open_siblings(events, there):
        with pytest.raises(StoreUnavailableError):
            await asking.cancel("acme", BY_ID)
        events.back = True
        for _ in range(10):  # turns of the loop
            await asyncio.sleep(0)
        async with running_in(there):
            assert await asking.cancel("acme", BY_ID) == Cancelled("cmp_1", cancelled=True)


async def test_the_use_case_asks_the_others(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.05)
    async with two() as (asking, _, there):
        services = replace(scene.services, siblings=asking)
        async with running_in(there):
            assert await cancel(services, ACME, BY_ID) == ("cmp_1", True)
        with pytest.raises(NotFoundError):
            await cancel(services, ACME, BY_ID)
        scene.alpha.will([(TextDelta("Hi"),), (Finished(FinishReason.STOP, Usage(3, 4)),)])
        ended = await scene.complete(idempotency_key="mine")
        assert await cancel(services, ACME, CompletionRef(idempotency_key="mine")) == (ended.id, False)


async def test_that_the_others_cannot_be_asked_is_told(scene: Scene) -> None:
    services = replace(scene.services, siblings=Siblings(Away(), RunningCompletions()))
    with pytest.raises(ServiceUnavailableError, match="the others can't be reached"):
        await cancel(services, ACME, BY_ID)
