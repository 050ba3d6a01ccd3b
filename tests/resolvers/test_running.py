"""What is running: who holds a key, who can be cancelled, and when each is over."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from resolvers.errors import ConflictError
from resolvers.running import Running, RunningCompletions
from resolvers.types import CompletionRef


async def test_a_cancelled_one_is_stopped_at_once_and_has_not_timed_out() -> None:
    deadline = asyncio.timeout(60)
    running = Running("c", deadline)
    with suppress(TimeoutError):
        async with deadline:
            assert running.cancel()
            assert running.cancel(), "asking twice is asking once"
            await asyncio.sleep(30)
    assert asyncio.get_running_loop().time() < 1
    assert (running.cancelled, running.timed_out) == (True, False)
    assert running.cancel()


async def test_one_whose_time_is_up_cannot_be_cancelled() -> None:
    deadline = asyncio.timeout(60)
    running = Running("c", deadline)
    with suppress(TimeoutError):
        async with deadline:
            try:
                await asyncio.sleep(61)
            finally:
                assert running.timed_out, "known while the work still unwinds"
                assert not running.cancel()
    assert (running.cancelled, running.timed_out) == (False, True)


async def test_one_that_has_ended_cannot_be_cancelled() -> None:
    deadline = asyncio.timeout(60)
    running = Running("c", deadline)
    async with deadline:
        running.ended = True
    assert not running.cancel()
    assert (running.cancelled, running.timed_out) == (False, False)


async def test_one_that_the_process_s_end_interrupts_is_told_from_one_that_was_cancelled() -> None:
    completions, ended = RunningCompletions(), Running("ended", asyncio.timeout(60))
    cancelled, running = asyncio.timeout(60), asyncio.timeout(60)
    ones = [Running("cancelled", cancelled), Running("running", running), ended]
    for one in ones:
        completions.add("acme", one)
    ended.ended = True
    with suppress(TimeoutError):
        async with cancelled, running:
            ones[0].cancel()
            completions.interrupt_all()
            await asyncio.sleep(30)
    assert asyncio.get_running_loop().time() < 1
    assert [one.interrupted for one in ones] == [False, True, False]


async def test_found_by_id_and_by_key_within_the_organisation_while_it_runs() -> None:
    registry = RunningCompletions()
    running = Running("c", asyncio.timeout(60))
    with registry.claim("acme", "k", "c"):
        registry.add("acme", running)
        assert registry.find("acme", CompletionRef(id="c")) is running
        assert registry.find("acme", CompletionRef(idempotency_key="k")) is running
        assert registry.find("globex", CompletionRef(id="c")) is None
        assert registry.find("globex", CompletionRef(idempotency_key="k")) is None
        assert registry.find("acme", CompletionRef(idempotency_key="c")) is None
        assert registry.find("acme", CompletionRef()) is None
        assert len(registry) == 1
        registry.remove("acme", running)
    assert len(registry) == 0
    assert registry.find("acme", CompletionRef(id="c")) is None
    assert registry.find("acme", CompletionRef(idempotency_key="k")) is None


def claim(registry: RunningCompletions, organisation: str, key: str) -> None:
    with registry.claim(organisation, key, "another"):
        pass


def test_a_key_is_held_once_in_an_organisation_and_let_go_when_the_holder_fails() -> None:
    registry = RunningCompletions()
    with suppress(ZeroDivisionError), registry.claim("acme", "k", "one"):
        claim(registry, "globex", "k")
        claim(registry, "acme", "other")
        with pytest.raises(ConflictError, match="one"):
            claim(registry, "acme", "k")
        raise ZeroDivisionError
    claim(registry, "acme", "k")


def test_without_a_key_nothing_is_claimed() -> None:
    registry = RunningCompletions()
    with registry.claim("acme", None, "one"), registry.claim("acme", None, "two"):
        pass
