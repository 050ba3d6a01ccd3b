"""A provider's keys: drawn by weight, at rest when limited or refused, and never a reason to give up early."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from persistence.records import Outcome
from providers.errors import ProviderAuthError, ProviderError, ProviderRateLimitedError, ProviderUnavailableError
from providers.types import Credentials
from resolvers.errors import CompletionFailedError
from resolvers.key_pool import LIMITED_S, REFUSED_S, KeyPool, KeyState, ProviderKey
from resolvers.routing import CIRCUIT_FAILURES, Vendor
from resolvers.types import CompletionFinished

from .scene import Scene, only, texts

KEYS = tuple(ProviderKey(name, Credentials(f"sk-{name}"), weight) for name, weight in (("1", 3), ("2", 1), ("3", 1)))
LIMITED = ProviderRateLimitedError("slow down", provider="alpha", status=429)
UNPAID = ProviderRateLimitedError("pay", provider="alpha", status=402, retryable=False)
REFUSED = ProviderAuthError("no", provider="alpha", status=401)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pool(clock: Clock, *keys: ProviderKey, draw: float = 0.0) -> KeyPool:
    return KeyPool(keys or KEYS, clock, lambda: draw)


def test_keys_are_drawn_by_their_weight(clock: Clock) -> None:
    drawn = KeyPool(KEYS, clock, random.Random(7).random)
    counts = Counter(key.id for key in (drawn.pick() for _ in range(5000)) if key)
    assert counts["1"] == pytest.approx(3000, rel=0.1)
    assert counts["2"] == pytest.approx(1000, rel=0.15)
    assert [pool(clock, draw=at).pick() for at in (0.0, 0.59, 0.61, 0.79, 0.81, 0.999999)] == [
        KEYS[place] for place in (0, 0, 1, 1, 2, 2)
    ]


@pytest.mark.parametrize(
    ("error", "state", "rest_s"),
    [
        (LIMITED, KeyState.LIMITED, LIMITED_S),
        (ProviderRateLimitedError("", provider="alpha", status=429, retry_after=30), KeyState.LIMITED, 30),
        (ProviderRateLimitedError("", provider="alpha", status=429, retry_after=9999), KeyState.LIMITED, REFUSED_S),
        (UNPAID, KeyState.REFUSED, REFUSED_S),
        (REFUSED, KeyState.REFUSED, REFUSED_S),
    ],
)
def test_a_key_rests_as_long_as_its_error_says(
    clock: Clock, error: ProviderError, state: KeyState, rest_s: float
) -> None:
    keys = pool(clock)
    assert keys.failed(KEYS[0], error)
    assert (keys.state(KEYS[0]), keys.pick()) == (state, KEYS[1])
    clock.now += rest_s - 0.1
    assert keys.state(KEYS[0]) is state
    clock.now += 0.1
    assert (keys.state(KEYS[0]), keys.pick()) == (KeyState.READY, KEYS[0])


def test_an_error_of_the_vendors_is_no_fault_of_the_key(clock: Clock) -> None:
    keys = pool(clock)
    assert not keys.failed(KEYS[0], ProviderUnavailableError("down", provider="alpha", status=503))
    assert keys.state(KEYS[0]) is KeyState.READY


def test_a_key_that_works_rests_no_more(clock: Clock) -> None:
    keys = pool(clock)
    keys.failed(KEYS[0], REFUSED)
    keys.worked(KEYS[0])
    assert keys.pick() == KEYS[0]


def test_where_all_rest_the_first_to_be_ready_is_used(clock: Clock) -> None:
    keys = pool(clock)
    for key, error in zip(KEYS, (REFUSED, LIMITED, REFUSED), strict=True):
        keys.failed(key, error)
    assert keys.pick() == KEYS[1]
    assert not keys.has_ready(())
    assert keys.pick(avoided={"1", "2", "3"}) is None


def test_the_only_key_is_always_used(clock: Clock) -> None:
    keys = pool(clock, KEYS[0])
    keys.failed(KEYS[0], REFUSED)
    assert (keys.pick(), keys.state(KEYS[0])) == (KEYS[0], KeyState.REFUSED)


# In a completion.


def pooled(scene: Scene) -> KeyPool:
    keys = KeyPool(KEYS, scene.services.clock, lambda: 0.0)
    scene.services.vendors["alpha"] = Vendor(scene.alpha, keys)  # type: ignore[index]
    return keys


def used(scene: Scene) -> list[str]:
    return [call.key for call in scene.alpha.calls]


async def test_a_limited_key_makes_room_for_another_at_once(scene: Scene) -> None:
    keys = pooled(scene)
    scene.jitter[0] = 1.0
    scene.alpha.will([LIMITED], [LIMITED], texts("hi"), texts("again"))
    begun = scene.services.clock()
    answer = await scene.complete()
    assert (answer.content, used(scene), scene.services.clock() - begun) == ("hi", ["sk-1", "sk-2", "sk-3"], 0)
    assert scene.booked("outcome", "error_code") == [
        (Outcome.FAILED, "PROVIDER_RATE_LIMITED"),
        (Outcome.FAILED, "PROVIDER_RATE_LIMITED"),
        (Outcome.SUCCEEDED, None),
    ]
    await scene.complete()
    assert used(scene)[-1] == "sk-3"
    assert keys.state(KEYS[0]) is KeyState.LIMITED


async def test_a_refused_key_is_no_end_while_there_is_another(scene: Scene) -> None:
    keys = pooled(scene)
    scene.alpha.will([REFUSED], texts("hi"))
    assert (await scene.complete()).content == "hi"
    assert used(scene) == ["sk-1", "sk-2"]
    assert keys.state(KEYS[0]) is KeyState.REFUSED


async def test_when_all_are_refused_the_error_is_told(scene: Scene) -> None:
    pooled(scene)
    scene.alpha.will(*([REFUSED] for _ in range(3)))
    with pytest.raises(CompletionFailedError) as caught:
        await scene.complete()
    assert (caught.value.code, used(scene)) == ("PROVIDER_AUTH", ["sk-1", "sk-2", "sk-3"])


async def test_when_all_are_limited_retries_go_on_as_with_one(scene: Scene) -> None:
    pooled(scene)
    scene.jitter[0] = 1.0
    scene.alpha.will(*([LIMITED] for _ in range(5)))
    with pytest.raises(CompletionFailedError) as caught:
        await scene.complete()
    assert caught.value.code == "PROVIDER_RATE_LIMITED"
    assert used(scene)[:3] == ["sk-1", "sk-2", "sk-3"]
    assert len(used(scene)) == 5  # the three tries of one key, of which two were another's


async def test_a_stream_goes_by_another_key_too(scene: Scene) -> None:
    pooled(scene)
    scene.alpha.will([REFUSED], texts("hi"))
    finished = only(await scene.events(), CompletionFinished)
    assert (finished.completion.content, used(scene)) == ("hi", ["sk-1", "sk-2"])


async def test_a_key_whose_circuit_is_open_is_passed_over(scene: Scene) -> None:
    pooled(scene)
    for _ in range(CIRCUIT_FAILURES):
        scene.services.circuits.failed(("alpha", "a-1", "1"), object())
    scene.alpha.will(texts("hi"))
    await scene.complete()
    assert used(scene) == ["sk-2"]
