"""Circuits over several processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from persistence.memory import MemoryEvents
from persistence.ports import StoreUnavailableError
from resolvers.routing import CIRCUIT_FAILURES, CIRCUIT_OPEN_S, Circuits
from resolvers.shared_circuits import BACKLOG, sharing_circuits

from .scene import other_tasks

KEY = ("alpha", "m", "1")


def circuits() -> Circuits:
    return Circuits(asyncio.get_running_loop().time)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Circuits, Circuits]]:
    one, two = circuits(), circuits()
    events = MemoryEvents()
    async with sharing_circuits(events, one), sharing_circuits(events, two):
        yield one, two
    assert other_tasks() == set()


def fail(here: Circuits) -> None:
    for _ in range(CIRCUIT_FAILURES):
        here.failed(KEY, object())


async def heard() -> None:
    await asyncio.sleep(0.001)  # of virtual time: everything that can run has run


async def test_what_opens_in_one_is_open_in_the_other(pair: tuple[Circuits, Circuits]) -> None:
    one, two = pair
    fail(one)
    await heard()
    assert two.blocked_for(KEY, object()) == pytest.approx(CIRCUIT_OPEN_S, abs=0.1)
    assert two.blocked_for(("alpha", "another", "1"), object()) == 0


async def test_a_probe_that_succeeds_closes_it_in_both(pair: tuple[Circuits, Circuits]) -> None:
    one, two = pair
    fail(one)
    await asyncio.sleep(CIRCUIT_OPEN_S + 1)
    probe = object()
    assert two.blocked_for(KEY, probe) == 0
    two.succeeded(KEY)
    await heard()
    assert one.blocked_for(KEY, object()) == 0
    assert one.open() == []
    one.failed(KEY, object())
    assert one.blocked_for(KEY, object()) == 0  # it counts anew


async def test_a_probe_that_fails_keeps_both_from_the_vendor(pair: tuple[Circuits, Circuits]) -> None:
    one, two = pair
    fail(one)
    await asyncio.sleep(CIRCUIT_OPEN_S + 1)
    probe = object()
    assert two.blocked_for(KEY, probe) == 0
    two.failed(KEY, probe)
    await heard()
    assert one.blocked_for(KEY, object()) > CIRCUIT_OPEN_S - 1


async def test_one_that_begins_later_is_told_what_is_open() -> None:
    events, one, two = MemoryEvents(), circuits(), circuits()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(sharing_circuits(events, one))
        fail(one)
        await asyncio.sleep(CIRCUIT_OPEN_S / 2)
        await stack.enter_async_context(sharing_circuits(events, two))
        await heard()
        assert two.blocked_for(KEY, object()) == pytest.approx(CIRCUIT_OPEN_S / 2, abs=0.1)


async def test_without_the_server_each_has_its_own() -> None:
    class Away(MemoryEvents):
        async def publish(self, channel: str, message: str) -> None:
            raise StoreUnavailableError("no route")

    one = circuits()
    async with sharing_circuits(Away(), one):
        for _ in range(2 * BACKLOG):
            one.failed(KEY, object())
        assert one.blocked_for(KEY, object()) > 0
    assert one.tell is None
