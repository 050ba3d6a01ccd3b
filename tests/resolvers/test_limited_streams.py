"""Limits of streams that nobody reads, or that are read again; and how limits stand while calls run, and after."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from decimal import Decimal
from typing import Any

from providers.types import TextDelta
from resolvers.errors import RateLimitedError
from resolvers.types import CompletionFailed, CompletionFinished, TextProduced

from .clockwork import idle
from .scene import ACME, STOP, Hold, Scene, only, texts
from .test_limits import MOST, limit, priced, refusal
from .test_resuming import again, left_after

COST = 27
MOST_TOKENS = 89


async def stand(scene: Scene) -> dict[str, tuple[Decimal, Decimal, Decimal]]:
    """Each limit, what is used of it, and what is left."""
    await idle()
    states = await scene.services.limit_rules.states_for(ACME)
    return {state.measure.value: (state.limit, state.used, state.left) for state in states}


def numbers(*values: Any) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, values))


async def test_how_limits_stand_while_a_call_runs_and_after(scene: Scene) -> None:
    priced(scene)
    limit(scene, requests_per_minute=5, tokens_per_minute=500, usd_per_day=Decimal(500), usd_per_month=Decimal(600))
    hold = Hold()
    scene.alpha.will([hold, *texts("hi")])
    running = scene.started(max_tokens=4)
    await hold.reached.wait()
    assert await stand(scene) == {
        "requests_per_minute": numbers(5, 1, 4),
        "tokens_per_minute": numbers(500, MOST_TOKENS, 500 - MOST_TOKENS),
        "usd_per_day": numbers(500, MOST, 500 - MOST),
        "usd_per_month": numbers(600, MOST, 600 - MOST),
    }
    hold.free.set()
    tokens = (await running).usage
    came_to = (tokens.input_tokens or 0) + (tokens.output_tokens or 0)
    assert await stand(scene) == {
        "requests_per_minute": numbers(5, 1, 4),
        "tokens_per_minute": numbers(500, came_to, 500 - came_to),
        "usd_per_day": numbers(500, COST, 500 - COST),
        "usd_per_month": numbers(600, COST, 600 - COST),
    }
    await asyncio.sleep(61)
    after = await stand(scene)
    assert (after["requests_per_minute"], after["tokens_per_minute"]) == (numbers(5, 0, 5), numbers(500, 0, 500))
    assert after["usd_per_day"] == numbers(500, COST, 500 - COST), "a day is no minute"


async def test_a_limit_that_is_lowered_below_what_is_used_has_nothing_left(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_day=Decimal(500))
    scene.alpha.will(texts("hi"))
    await scene.complete(max_tokens=4)
    limit(scene, usd_per_day=Decimal(20))
    assert await stand(scene) == {"usd_per_day": numbers(20, COST, 0)}


async def test_a_detached_stream_holds_its_place_and_its_budget_until_it_ends(scene: Scene) -> None:
    priced(scene)
    limit(scene, streams=1, usd_per_day=Decimal(MOST))
    hold = Hold()
    scene.alpha.will([(TextDelta("one "),), hold, *texts("two")])
    async with aclosing(scene.stream(detached=True, max_tokens=4)) as events:
        started = await anext(events)
        await hold.reached.wait()
    assert await stand(scene) == {"streams": numbers(1, 1, 0), "usd_per_day": numbers(MOST, MOST, 0)}
    failed = only(await scene.events(max_tokens=4), CompletionFailed)
    assert failed.code in ("RATE_LIMITED", "BUDGET_EXCEEDED")
    hold.free.set()
    only(await again(scene, started.completion_id), CompletionFinished)
    assert await stand(scene) == {"streams": numbers(1, 0, 1), "usd_per_day": numbers(MOST, COST, MOST - COST)}


async def test_a_detached_stream_that_is_cancelled_gives_back_both(scene: Scene) -> None:
    limit(scene, streams=1)
    hold = Hold()
    scene.alpha.will([(TextDelta("one "),), hold], texts("hi"))
    async with aclosing(scene.stream(detached=True)) as events:
        started = await anext(events)
        await hold.reached.wait()
    await scene.cancel(id=started.completion_id)
    assert await stand(scene) == {"streams": numbers(1, 0, 1)}
    only(await scene.events(), CompletionFinished)


async def test_to_resume_is_no_other_request_and_takes_no_other_place(scene: Scene) -> None:
    """While it runs, by however many, and after its end."""
    limit(scene, requests_per_minute=1, tokens_per_minute=MOST_TOKENS, streams=1)
    hold = Hold()
    scene.alpha.will([(TextDelta("one "),), hold, (TextDelta("two"),), STOP])
    async with aclosing(scene.stream(detached=True, max_tokens=4)) as events:
        started = await anext(events)
    readers = [asyncio.create_task(again(scene, started.completion_id)) for _ in range(3)]
    await idle()
    assert (await stand(scene))["streams"] == numbers(1, 1, 0)
    hold.free.set()
    for events_seen in await asyncio.gather(*readers):
        assert only(events_seen, CompletionFinished).completion.content == "one two"
    only(await again(scene, started.completion_id), CompletionFinished)
    found = await stand(scene)
    assert (found["requests_per_minute"], found["streams"]) == (numbers(1, 1, 0), numbers(1, 0, 1))
    await refusal(scene, RateLimitedError, max_tokens=4)


async def test_a_reader_that_left_is_charged_for_what_was_written(scene: Scene) -> None:
    priced(scene)
    limit(scene, usd_per_day=Decimal(500), streams=1)
    scene.alpha.will([(TextDelta("one "),), Hold()])
    await left_after(scene, TextProduced, max_tokens=4)
    found = await stand(scene)
    booked = sum((entry.cost or Decimal(0) for entry in scene.store.entries), Decimal(0))
    assert found == {"streams": numbers(1, 0, 1), "usd_per_day": numbers(500, booked, 500 - booked)}
    assert 0 < booked <= MOST
