"""Calls to vendors, of which a process makes so many at once: who waits, for whom, and for how long."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from persistence.records import Outcome
from resolvers.errors import CompletionFailedError, ServiceUnavailableError
from resolvers.upstream import WAIT_S, Upstream

from .clockwork import idle
from .scene import BETA, GLOBEX, Hold, Scene, texts, unavailable


async def test_one_organisation_has_all_but_what_is_besides() -> None:
    upstream = Upstream(20)
    for _ in range(20):
        await upstream.take("acme")
    waiting = asyncio.create_task(upstream.take("acme"))
    await idle()
    for other in ("globex", "initech"):
        await upstream.take(other)
    with pytest.raises(ServiceUnavailableError) as caught:
        await upstream.take("umbrella")
    assert (caught.value.retryable, caught.value.retry_after_ms) == (True, 5_000)
    with pytest.raises(ServiceUnavailableError):
        await waiting
    upstream.leave("globex")
    await upstream.take("umbrella")


async def test_organisations_take_turns() -> None:
    upstream, order = Upstream(1), list[str]()

    async def call(organisation: str) -> None:
        await upstream.take(organisation)
        order.append(organisation)
        await asyncio.sleep(0.1)
        upstream.leave(organisation)

    for holder in ("first", "besides"):
        await upstream.take(holder)
    calls = [asyncio.create_task(call(each)) for each in ("acme", "acme", "acme", "globex", "initech")]
    await idle()
    assert not order
    upstream.leave("first")
    await asyncio.gather(*calls)
    assert order == ["acme", "globex", "initech", "acme", "acme"]


async def test_whose_caller_goes_leaves_his_place_to_the_next() -> None:
    """Also where he has it just then, or his time is over just then."""
    upstream = Upstream(1)
    await upstream.take("acme")
    await upstream.take("globex")
    gone, over, last = (asyncio.create_task(upstream.take("acme")) for _ in range(3))
    await idle()
    over.cancel()
    upstream.leave("acme")
    gone.cancel()
    await last
    assert (gone.cancelled(), over.cancelled()) == (True, True)
    upstream.leave("acme")
    upstream.leave("globex")
    for other in ("initech", "umbrella"):
        await upstream.take(other)


async def test_who_fills_a_process_shuts_out_nobody(scene: Scene) -> None:
    """By calls that wait and cost nothing. What has found no place is no failure of the vendor's."""
    scene = replace(scene, services=replace(scene.services, upstream=Upstream(10)))
    holds = [Hold() for _ in range(10)]
    scene.alpha.will(*([each, *texts("hi")] for each in holds), texts("hi"))
    running = [scene.started() for _ in holds]
    await asyncio.gather(*(each.reached.wait() for each in holds))
    for _ in range(5):
        with pytest.raises(ServiceUnavailableError):
            await scene.complete()
    assert (await scene.complete(GLOBEX)).content == "hi"
    waiting = scene.started()
    await asyncio.sleep(WAIT_S / 2)
    scene.alpha.will(texts("late"))
    holds[0].free.set()
    assert (await waiting).content == "late"
    for each in holds:
        each.free.set()
    await asyncio.gather(*running)
    assert {outcome for (outcome,) in scene.booked("outcome")} == {Outcome.SUCCEEDED}


async def test_another_try_that_finds_no_place_tells_of_those_before(scene: Scene) -> None:
    upstream = Upstream(1)
    scene = replace(scene, services=replace(scene.services, upstream=upstream))
    await upstream.take("globex")
    hold = Hold()
    scene.alpha.will([hold, unavailable(retryable=False)])
    running = scene.started(fallbacks=(BETA,))
    await hold.reached.wait()
    following = asyncio.create_task(upstream.take("initech"))
    await idle()
    hold.free.set()
    with pytest.raises(CompletionFailedError) as caught:
        await running
    await following
    assert (caught.value.code, len(caught.value.attempts)) == ("SERVICE_UNAVAILABLE", 1)
