"""How the providers do: what counts, for how long it is remembered, and who is told of a change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from providers.errors import ProviderAuthError, ProviderInvalidRequestError
from providers.types import Credentials
from resolvers.errors import CompletionFailedError, ServiceUnavailableError
from resolvers.health import LOOK_EVERY_S, MAX_ATTEMPTS, WINDOW_S, Health, ProviderHealth
from resolvers.key_pool import KeyPool, KeyState, ProviderKey
from resolvers.routing import CIRCUIT_FAILURES, CIRCUIT_OPEN_S, Circuits, CircuitState, Vendor

from .clockwork import idle
from .scene import FakeProvider, Hold, Scene, other_tasks, texts, unavailable

CALLER = object()
KEYS = [ProviderKey(name, Credentials("secret")) for name in ("1", "2")]
READY = {name: tuple((key.id, KeyState.READY) for key in KEYS[:count]) for name, count in (("alpha", 2), ("beta", 1))}
Changes = AsyncGenerator[ProviderHealth, None]


class Bench:
    """Health on its own, on the loop's time."""

    def __init__(self) -> None:
        clock = asyncio.get_running_loop().time
        self.circuits = Circuits(clock)
        pools = {"alpha": KeyPool([KEYS[0], KEYS[1]], clock, lambda: 0.0), "beta": KeyPool([KEYS[0]], clock)}
        vendors = {name: Vendor(FakeProvider(name), pool) for name, pool in pools.items()}
        self.alphas_keys = pools["alpha"]
        self.health = Health(["beta", "gamma"], vendors, self.circuits, clock)

    def of(self, name: str) -> ProviderHealth:
        (found,) = (each for each in self.health.providers() if each.name == name)
        return found

    def breaks(self, model: str) -> None:
        for _ in range(CIRCUIT_FAILURES):
            self.circuits.failed(("alpha", model, "1"), CALLER)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def quiet(name: str, *, configured: bool = True) -> ProviderHealth:
    return ProviderHealth(name, configured, CircuitState.CLOSED, 0, None, None, READY.get(name, ()))


async def first(changes: Changes, count: int = 3) -> list[str]:
    return [(await anext(changes)).name for _ in range(count)]


async def nothing_for(seconds: float, change: asyncio.Task[ProviderHealth]) -> bool:
    await asyncio.wait([change], timeout=seconds)
    return not change.done()


def following(changes: Changes) -> asyncio.Task[ProviderHealth]:
    async def next_change() -> ProviderHealth:
        return await anext(changes)

    return asyncio.create_task(next_change())


async def test_all_that_are_known_by_name(bench: Bench) -> None:
    assert bench.health.providers() == [quiet("alpha"), quiet("beta"), quiet("gamma", configured=False)]


async def test_rate_and_median(bench: Bench) -> None:
    for latency_ms, failed in [(10, False), (30, False), (9999, True), (20, False)]:
        bench.health.attempted("alpha", latency_ms, failed=failed)
    bench.health.attempted("beta", 5, failed=True)
    assert bench.of("alpha") == ProviderHealth("alpha", True, CircuitState.CLOSED, 4, 0.25, 20, READY["alpha"])
    assert bench.of("beta") == ProviderHealth("beta", True, CircuitState.CLOSED, 1, 1.0, None, READY["beta"])


async def test_what_is_old_is_forgotten_and_what_is_kept_is_bounded(bench: Bench) -> None:
    bench.health.attempted("alpha", 10, failed=True)
    await asyncio.sleep(WINDOW_S - 1)
    bench.health.attempted("alpha", 20, failed=False)
    assert bench.of("alpha").attempts == 2
    await asyncio.sleep(1)
    assert bench.of("alpha") == ProviderHealth("alpha", True, CircuitState.CLOSED, 1, 0.0, 20, READY["alpha"])
    for _ in range(3 * MAX_ATTEMPTS):
        bench.health.attempted("alpha", 30, failed=False)
    assert bench.of("alpha").attempts == MAX_ATTEMPTS


async def test_the_worst_circuit_is_the_provider_s(bench: Bench) -> None:
    bench.breaks("a-1")
    assert bench.of("alpha").circuit is CircuitState.OPEN
    await asyncio.sleep(CIRCUIT_OPEN_S)
    assert bench.of("alpha").circuit is CircuitState.HALF_OPEN
    bench.breaks("a-2")
    assert bench.of("alpha").circuit is CircuitState.OPEN
    bench.circuits.succeeded(("alpha", "a-1", "1"))
    bench.circuits.succeeded(("alpha", "a-2", "1"))
    assert bench.of("alpha").circuit is bench.of("beta").circuit is CircuitState.CLOSED


async def test_the_state_first_then_what_changes(bench: Bench) -> None:
    async with aclosing(bench.health.changes()) as changes:
        assert await first(changes) == ["alpha", "beta", "gamma"]
        change = following(changes)
        assert await nothing_for(60, change)
        bench.breaks("a-1")
        assert (await change).circuit is CircuitState.OPEN
        began = asyncio.get_running_loop().time()
        assert (await anext(changes)).circuit is CircuitState.HALF_OPEN, "time alone brings this one"
        assert asyncio.get_running_loop().time() - began <= CIRCUIT_OPEN_S + LOOK_EVERY_S


async def test_many_listeners_one_watcher_and_none_is_left(bench: Bench) -> None:
    before = other_tasks()
    async with aclosing(bench.health.changes()) as one:
        await first(one)
        bench.health.attempted("beta", 5, failed=False)
        async with aclosing(bench.health.changes()) as two:
            await first(two)
            assert len(other_tasks() - before) == 1
            assert (await anext(one)).attempts == 1
            again = following(two)
            assert await nothing_for(60, again), "it was told at the start"
            bench.health.attempted("alpha", 5, failed=False)
            assert (await again).name == (await anext(one)).name == "alpha"
        assert len(other_tasks() - before) == 1
    assert other_tasks() == before
    async with aclosing(bench.health.changes()) as three:
        assert (await anext(three)).attempts == 1
    assert other_tasks() == before


async def test_a_slow_listener_gets_the_last_state(bench: Bench) -> None:
    async with aclosing(bench.health.changes()) as changes:
        await first(changes)
        for number in range(100):
            bench.health.attempted("alpha", number, failed=False)
            await asyncio.sleep(LOOK_EVERY_S)
        assert (await anext(changes)).attempts == 100
        later = following(changes)
        assert await nothing_for(0, later)
        later.cancel()
        await asyncio.wait([later])


async def test_attempts_of_completions_are_seen(scene: Scene) -> None:
    health = scene.services.health
    scene.alpha.will([unavailable()], texts("fine"))
    await scene.complete()
    alpha, beta, gamma = health.providers()
    assert (alpha.attempts, alpha.error_rate) == (2, 0.5)
    assert (beta.attempts, gamma.configured) == (0, False)


async def test_the_caller_s_own_faults_and_leavings_count_for_nothing(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([ProviderInvalidRequestError("no", provider="alpha", status=400)], [hold])
    with pytest.raises(CompletionFailedError):
        await scene.complete()
    leaving = scene.started()
    await hold.reached.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    await idle()
    assert scene.services.health.providers()[0].attempts == 0


async def test_at_the_process_end_listeners_are_told(bench: Bench) -> None:
    async with aclosing(bench.health.changes()) as changes:
        assert len(await first(changes)) == 3
        waiting = following(changes)
        await idle()
        bench.health.close()
        with pytest.raises(ServiceUnavailableError):
            await waiting


async def test_a_key_that_rests_is_shown(bench: Bench) -> None:
    bench.alphas_keys.failed(KEYS[1], ProviderAuthError("no", provider="alpha", status=401))
    assert bench.of("alpha").keys == (("1", KeyState.READY), ("2", KeyState.REFUSED))
    bench.alphas_keys.worked(KEYS[1])
    assert bench.of("alpha").keys == READY["alpha"]
