"""A vendor's limit that one organisation has met, by a key that others call with too."""

from __future__ import annotations

import asyncio

import pytest

from providers.errors import ProviderRateLimitedError
from resolvers.errors import CompletionFailedError
from resolvers.routing import CIRCUIT_FAILURES, TRIES_PER_TARGET

from .clockwork import idle
from .scene import ACME, BETA, GLOBEX, Hold, Scene, texts

ASKED_S = 2.0


async def met(scene: Scene, asked_s: float | None = ASKED_S) -> None:
    """By calls that are all under way at once, and have no time to wait for so long."""
    error = ProviderRateLimitedError("slow down", provider="alpha", status=429, retry_after=asked_s)
    scene.alpha.will(*[[error]] * (CIRCUIT_FAILURES * (1 if asked_s else TRIES_PER_TARGET)))
    calls = (scene.complete(ACME, timeout_ms=1000) for _ in range(CIRCUIT_FAILURES))
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [getattr(end, "code", None) for end in ends] == [error.code] * CIRCUIT_FAILURES


async def test_others_are_kept_from_it_for_as_long_as_the_vendor_asks_and_no_longer(scene: Scene) -> None:
    await met(scene)
    with pytest.raises(CompletionFailedError) as caught:
        await scene.complete(GLOBEX)
    assert (caught.value.code, caught.value.retry_after_ms) == ("PROVIDER_UNAVAILABLE", ASKED_S * 1000)
    await asyncio.sleep(ASKED_S)
    scene.alpha.will(texts("hi"))
    assert (await scene.complete(GLOBEX)).content == "hi"


async def test_who_has_a_fallback_goes_there_meanwhile(scene: Scene) -> None:
    await met(scene)
    scene.beta.will(texts("hi"))
    answer = await scene.complete(GLOBEX, fallbacks=(BETA,))
    assert [attempt.provider for attempt in answer.attempts] == ["beta"]


async def test_afterwards_nobody_waits_for_anothers_call_to_end(scene: Scene) -> None:
    """The vendor is well: no probe has to show it."""
    await met(scene)
    await asyncio.sleep(ASKED_S)
    scene.alpha.will([Hold()])
    long = scene.started()
    await idle()
    scene.alpha.will(texts("hi"))
    assert (await scene.complete(GLOBEX)).content == "hi"
    long.cancel()


async def test_where_the_vendor_does_not_say_how_long_nobody_is_kept_from_it(scene: Scene) -> None:
    await met(scene, None)
    scene.alpha.will(texts("hi"))
    assert (await scene.complete(GLOBEX)).content == "hi"
