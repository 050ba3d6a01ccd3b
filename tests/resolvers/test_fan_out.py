"""Several completions at once: order kept, each with its own end, one deadline, all cancelled together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from persistence.records import Outcome
from providers.errors import ProviderInvalidRequestError
from resolvers import fan_out
from resolvers.errors import BadUserInputError, CompletionFailedError, ConflictError, ServiceUnavailableError
from resolvers.fan_out import AT_ONCE, MAX_INPUTS, complete_many
from resolvers.types import Completion, Target

from .clockwork import idle
from .scene import ACME, BETA, Hold, Scene, command, texts, unavailable


async def many(scene: Scene, *inputs: fan_out.Asked) -> list[fan_out.Outcome]:
    return await complete_many(scene.services, ACME, inputs)


def started(scene: Scene, *inputs: fan_out.Asked) -> asyncio.Task[list[fan_out.Outcome]]:
    return asyncio.create_task(many(scene, *inputs))


def contents(outcomes: list[fan_out.Outcome]) -> list[Any]:
    """The text of each answer, the code or the class of each error."""
    return [
        each.content if isinstance(each, Completion) else getattr(each, "code", type(each).__name__)
        for each in outcomes
    ]


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_order_is_kept_whoever_ends_first(scene: Scene) -> None:
    slow = Hold()
    scene.alpha.will([slow, *texts("slow")])
    scene.beta.will(texts("quick"))
    waiting = started(scene, command(), command(target=BETA))
    await slow.reached.wait()
    await idle()
    assert scene.beta.endings == ["whole"]
    slow.free.set()
    assert contents(await waiting) == ["slow", "quick"]
    assert sorted(scene.booked("provider", "outcome")) == [
        ("alpha", Outcome.SUCCEEDED),
        ("beta", Outcome.SUCCEEDED),
    ]


async def test_each_fails_beside_the_others(scene: Scene) -> None:
    refused = ProviderInvalidRequestError("no", provider="beta", status=400)
    scene.alpha.will(texts("fine"), texts("too"))
    scene.beta.will([refused], [RuntimeError("a defect")])
    bad = BadUserInputError("not so", path=("input", "labels", 1, "name"))
    outcomes = await many(
        scene, command(), command(target=BETA), bad, command(top_p=7.0), command(target=BETA), command()
    )
    assert contents(outcomes) == [
        "fine",
        "PROVIDER_INVALID_REQUEST",
        "BAD_USER_INPUT",
        "BAD_USER_INPUT",
        "RuntimeError",
        "too",
    ]
    assert [each.path for each in outcomes if isinstance(each, BadUserInputError)] == [
        ("inputs", 2, "labels", 1, "name"),
        ("inputs", 3, "topP"),
    ]
    assert len(scene.store.entries) == 4, "each attempt is booked as ever"


async def test_a_few_run_at_once_and_the_first_inputs_first(scene: Scene) -> None:
    holds = [Hold() for _ in range(AT_ONCE + 2)]
    scene.alpha.will(*([hold, *texts(str(number))] for number, hold in enumerate(holds)))
    waiting = started(scene, *(command(end_user=f"u{number}") for number in range(len(holds))))
    await idle()
    assert [call.request.end_user for call in scene.alpha.calls] == [f"u{number}" for number in range(AT_ONCE)]
    holds[3].free.set()
    await holds[AT_ONCE].reached.wait()
    assert len(scene.alpha.calls) == AT_ONCE + 1
    for hold in holds:
        hold.free.set()
    assert contents(await waiting) == [str(number) for number in range(len(holds))]


async def test_one_deadline_over_those_that_run_and_those_that_wait(scene: Scene) -> None:
    scene.alpha.will(*([Hold()] for _ in range(AT_ONCE + 1)))
    began = now()
    first, *others = (command(timeout_ms=1500), *(command(timeout_ms=2000) for _ in range(AT_ONCE)))
    outcomes = await many(scene, first, *others)
    assert now() - began == pytest.approx(2.0, abs=0.01)
    assert contents(outcomes) == ["DEADLINE_EXCEEDED"] * (AT_ONCE + 1)
    assert scene.alpha.calls[-1].at - began == pytest.approx(1.5, abs=0.01), "in the place of the first"


async def test_what_never_got_a_place_was_never_sent(scene: Scene) -> None:
    scene.alpha.will(*([Hold()] for _ in range(AT_ONCE)))
    outcomes = await many(scene, *(command(timeout_ms=2000) for _ in range(AT_ONCE + 1)))
    late = outcomes[-1]
    assert isinstance(late, CompletionFailedError)
    assert (late.code, late.attempts) == ("DEADLINE_EXCEEDED", ())
    assert "2000 ms (0 attempts)" in late.message
    assert len(scene.alpha.calls) == len(scene.store.entries) == AT_ONCE


async def test_a_shorter_timeout_of_its_own_holds(scene: Scene) -> None:
    long = Hold()
    scene.alpha.will([Hold()])
    scene.beta.will([long, *texts("in time")])
    waiting = started(scene, command(timeout_ms=1000), command(target=BETA, timeout_ms=5000))
    asyncio.get_running_loop().call_later(4.0, long.free.set)
    assert contents(await waiting) == ["DEADLINE_EXCEEDED", "in time"]


@pytest.mark.parametrize("timeout_ms", [0, -1, 300_001, 2**31 - 1])
async def test_a_timeout_out_of_bounds_is_told_and_bounds_nothing(scene: Scene, timeout_ms: int) -> None:
    scene.alpha.will(texts("fine"))
    outcomes = await many(scene, command(timeout_ms=timeout_ms), command())
    assert contents(outcomes) == ["BAD_USER_INPUT", "fine"]


async def test_a_client_that_leaves_cancels_all(scene: Scene) -> None:
    holds = [Hold() for _ in range(3)]
    scene.alpha.will(*([*texts("so far")[:1], hold] for hold in holds))
    waiting = started(scene, *(command() for _ in holds))
    await asyncio.gather(*(hold.reached.wait() for hold in holds))
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert scene.alpha.endings == ["CancelledError"] * 3
    await idle()
    assert scene.booked("outcome") == [(Outcome.CANCELLED,)] * 3


async def test_one_can_be_cancelled_alone(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    scene.beta.will(texts("on its own"))
    waiting = started(scene, command(idempotency_key="k"), command(target=BETA))
    await hold.reached.wait()
    await scene.cancel(idempotency_key="k")
    cancelled, other = await waiting
    assert isinstance(cancelled, Completion)
    assert cancelled.finish_reason == "cancelled"
    assert contents([other]) == ["on its own"]


async def test_an_idempotency_key_is_used_once(scene: Scene) -> None:
    scene.alpha.will(texts("first"))
    first, second = await many(scene, command(idempotency_key="k"), command(idempotency_key="k"))
    assert isinstance(first, Completion)
    assert isinstance(second, ConflictError)


async def test_retries_and_fallbacks_go_on_as_ever(scene: Scene) -> None:
    scene.alpha.will([unavailable()], texts("at the second try"))
    (outcome,) = await many(scene, command())
    assert isinstance(outcome, Completion)
    assert len(outcome.attempts) == 2


async def test_no_ledger_no_call(scene: Scene) -> None:
    scene.inflight.full = True
    outcomes = await many(scene, command(), command(target=Target("beta", "b-2")))
    assert [type(each) for each in outcomes] == [ServiceUnavailableError] * 2
    assert scene.alpha.calls == scene.beta.calls == []


async def test_bounds(scene: Scene) -> None:
    assert await many(scene) == []
    with pytest.raises(BadUserInputError) as caught:
        await many(scene, *(command() for _ in range(MAX_INPUTS + 1)))
    assert caught.value.path == ("inputs",)
    assert scene.alpha.calls == []
