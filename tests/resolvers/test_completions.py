"""One whole answer: attempts along the route, booked before it is returned."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from persistence.records import CostSource, Outcome
from providers.errors import (
    ProviderAuthError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    UnsendableRequestError,
    UnsupportedFeatureError,
)
from providers.types import (
    Finished,
    FinishReason,
    Message,
    ReasoningDelta,
    Role,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)
from resolvers.errors import BadUserInputError, CompletionFailedError, ServiceUnavailableError
from resolvers.routing import CIRCUIT_FAILURES, CIRCUIT_OPEN_S
from resolvers.run import DEFAULT_TIMEOUT_MS
from resolvers.types import Target

from .clockwork import idle
from .scene import BETA, STOP, Hold, Scene, texts, unavailable


async def failure(scene: Scene, **changes: Any) -> CompletionFailedError:
    with pytest.raises(CompletionFailedError) as caught:
        await scene.complete(**changes)
    return caught.value


async def test_an_answer_with_all_it_has(scene: Scene) -> None:
    usage = Usage(100, 20, cached_input_tokens=60, cache_write_tokens=5, reasoning_tokens=8, cost=Decimal("0.001"))
    deltas = (ReasoningDelta("hm"), TextDelta("hi"), ToolCallDelta(0, "call_1", "look_up", "{}"))
    scene.alpha.will([deltas, (Finished(FinishReason.TOOL_CALLS, usage, "a-1-2026"),)])
    answer = await scene.complete(labels={"team": "search"}, end_user="u1", idempotency_key="k1")
    assert (answer.provider, answer.model, answer.cached) == ("alpha", "a-1", False)
    assert (answer.reasoning, answer.content) == ("hm", "hi")
    assert answer.tool_calls == (ToolCall("call_1", "look_up", "{}"),)
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    assert answer.usage.cost == Decimal("0.001")
    assert (answer.usage.cost_source, answer.usage.estimated) == (CostSource.PROVIDER, False)
    assert [(attempt.outcome, attempt.error_code) for attempt in answer.attempts] == [(Outcome.SUCCEEDED, None)]
    assert answer.time_to_first_token_ms is None
    (entry,) = scene.store.entries
    assert (entry.time, entry.completion_id, entry.attempt) == (answer.created_at, answer.id, 1)
    assert (entry.organisation, entry.principal, entry.end_user) == ("acme", "key_1", "u1")
    assert (entry.labels, entry.idempotency_key, entry.streamed) == ({"team": "search"}, "k1", False)
    assert (entry.input_tokens, entry.output_tokens, entry.cached_input_tokens) == (100, 20, 60)
    assert (entry.cache_write_tokens, entry.reasoning_tokens, entry.finish_reason) == (5, 8, "tool_calls")
    assert (entry.outcome, entry.error_code, entry.estimated) == (Outcome.SUCCEEDED, None, False)


async def test_the_vendor_is_asked_for_everything_and_given_its_own_options_only(scene: Scene) -> None:
    scene.alpha.will([unavailable(retryable=False)])
    scene.beta.will(texts("hi"))
    asked: dict[str, Any] = {
        "messages": (Message(Role.SYSTEM, "be brief"), Message(Role.USER, "hello")),
        "tools": (Tool("look_up"),),
        "tool_choice": ToolChoice(ToolChoiceMode.AUTO),
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 10,
        "stop": ("x",),
        "seed": 4,
        "end_user": "u1",
    }
    await scene.complete(**asked, fallbacks=(BETA,), provider_options={"alpha": {"a": 1}, "beta": {"b": 2}})
    (first,), (second,) = scene.alpha.calls, scene.beta.calls
    assert (first.request.model, first.request.options) == ("a-1", {"a": 1})
    assert (second.request.model, second.request.options) == ("b-1", {"b": 2})
    assert {name: getattr(first.request, name) for name in asked} == asked


async def test_the_answer_waits_for_its_entry_to_be_committed(scene: Scene) -> None:
    scene.alpha.will(texts("hi"))
    scene.store.gate.clear()
    task = scene.started()
    await scene.store.appending.wait()
    await idle()
    assert not task.done()
    scene.store.gate.set()
    assert (await task).content == "hi"
    assert scene.booked("attempt") == [(1,)]


async def test_an_attempt_is_noted_before_it_is_sent(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold, *texts("hi")])
    task = scene.started()
    await hold.reached.wait()
    (note,) = scene.inflight.noted.values()
    assert (note.attempt, note.outcome, note.estimated) == (1, Outcome.ABANDONED, True)
    hold.free.set()
    await task


async def test_retries_then_the_fallback_each_attempt_an_entry_of_its_own(scene: Scene) -> None:
    scene.alpha.will([unavailable()], [ProviderTimeoutError("slow", provider="alpha")], [unavailable()])
    scene.beta.will(texts("hi"))
    answer = await scene.complete(fallbacks=(BETA,))
    assert (answer.provider, answer.content) == ("beta", "hi")
    assert scene.booked("attempt", "provider", "outcome", "error_code", "cost_source", "estimated") == [
        (1, "alpha", Outcome.FAILED, "PROVIDER_UNAVAILABLE", CostSource.NOT_BILLED, False),
        (2, "alpha", Outcome.FAILED, "PROVIDER_TIMEOUT", CostSource.UNKNOWN, True),
        (3, "alpha", Outcome.FAILED, "PROVIDER_UNAVAILABLE", CostSource.NOT_BILLED, False),
        (4, "beta", Outcome.SUCCEEDED, None, CostSource.UNKNOWN, False),
    ]
    assert {entry.completion_id for entry in scene.store.entries} == {answer.id}
    assert len({entry.time for entry in scene.store.entries}) == 1
    assert [(each.provider, each.error_code) for each in answer.attempts] == [
        ("alpha", "PROVIDER_UNAVAILABLE"),
        ("alpha", "PROVIDER_TIMEOUT"),
        ("alpha", "PROVIDER_UNAVAILABLE"),
        ("beta", None),
    ]
    assert answer.usage.input_tokens == 7 + 2, "the sum of the attempts: the timeout's share is an estimate"
    assert answer.usage.estimated


async def test_backoff_and_retry_after_take_the_time_they_should(scene: Scene) -> None:
    scene.jitter[0] = 0.5
    scene.alpha.will([unavailable()], [ProviderRateLimitedError("wait", provider="alpha", retry_after=7)], texts("hi"))
    answer = await scene.complete()
    assert [call.at for call in scene.alpha.calls] == pytest.approx([0.0, 0.25, 7.25], abs=1e-3)
    assert answer.latency_ms == 7250


async def test_a_failure_tells_the_last_attempts_story(scene: Scene) -> None:
    scene.alpha.will([ProviderAuthError("who?", provider="alpha", status=401)])
    scene.beta.will([ProviderRateLimitedError("wait", provider="beta", status=429, retry_after=200.0)])
    error = await failure(scene, fallbacks=(BETA,))
    assert (error.code, error.provider, error.message) == ("PROVIDER_RATE_LIMITED", "beta", "wait")
    assert (error.retryable, error.retry_after_ms) == (True, 200_000)
    assert [attempt.error_code for attempt in error.attempts] == ["PROVIDER_AUTH", "PROVIDER_RATE_LIMITED"]
    assert (error.usage.cost, error.usage.cost_source) == (Decimal(0), CostSource.NOT_BILLED)
    assert [entry.completion_id for entry in scene.store.entries] == [error.completion_id] * 2


async def test_a_failure_is_told_when_its_entries_are_committed(scene: Scene) -> None:
    scene.alpha.will([ProviderInvalidRequestError("no", provider="alpha", status=400)])
    scene.store.gate.clear()
    task = asyncio.create_task(failure(scene))
    await scene.store.appending.wait()
    await idle()
    assert not task.done()
    scene.store.gate.set()
    assert (await task).code == "PROVIDER_INVALID_REQUEST"


@pytest.mark.parametrize(
    "refusal",
    [
        UnsupportedFeatureError("seed", provider="alpha", model="a-1"),
        UnsendableRequestError("no JSON", provider="alpha"),
    ],
    ids=["unsupported", "unsendable"],
)
async def test_what_cannot_be_sent_is_not_an_attempt(scene: Scene, refusal: ProviderError) -> None:
    scene.alpha.will([refusal])
    error = await failure(scene, fallbacks=(BETA,))
    assert (error.code, error.attempts, error.retryable) == ("BAD_USER_INPUT", (), False)
    assert (scene.store.entries, scene.inflight.noted, scene.beta.calls) == ([], {}, [])


async def test_attempts_are_counted_without_the_one_that_was_never_sent(scene: Scene) -> None:
    scene.alpha.will([unavailable(retryable=False)])
    scene.beta.will([UnsupportedFeatureError("seed", provider="beta", model="b-1")])
    error = await failure(scene, fallbacks=(BETA,))
    assert [attempt.provider for attempt in error.attempts] == ["alpha"]
    assert scene.booked("attempt") == [(1,)]


async def test_the_deadline_ends_a_vendor_that_says_nothing(scene: Scene) -> None:
    scene.alpha.will([Hold()])
    error = await failure(scene, timeout_ms=1500, fallbacks=(BETA,))
    assert (error.code, error.provider, error.retryable) == ("DEADLINE_EXCEEDED", "alpha", True)
    assert "1500 ms (1 attempt)" in error.message
    assert scene.alpha.endings == ["CancelledError"]
    assert scene.booked("outcome", "error_code", "estimated", "latency_ms", "input_tokens") == [
        (Outcome.FAILED, "DEADLINE_EXCEEDED", True, 1500, 2)
    ]


async def test_there_is_a_deadline_where_none_is_asked_for(scene: Scene) -> None:
    scene.alpha.will([Hold()])
    await failure(scene)
    assert asyncio.get_running_loop().time() == pytest.approx(DEFAULT_TIMEOUT_MS / 1000, abs=1e-3)


async def test_the_deadline_bounds_all_attempts_together(scene: Scene) -> None:
    scene.alpha.will([ProviderRateLimitedError("wait", provider="alpha", status=429, retry_after=3)], [Hold()])
    error = await failure(scene, timeout_ms=5000)
    assert [attempt.error_code for attempt in error.attempts] == ["PROVIDER_RATE_LIMITED", "DEADLINE_EXCEEDED"]
    assert asyncio.get_running_loop().time() == pytest.approx(5, abs=1e-3)


async def test_the_deadline_counts_from_the_call_not_from_the_first_attempt(scene: Scene) -> None:
    read = scene.store.completion_by_key

    async def slow(*args: str) -> Any:
        await asyncio.sleep(3)
        return await read(*args)

    scene.store.completion_by_key = slow  # type: ignore[method-assign]
    scene.alpha.will([Hold()])
    await failure(scene, timeout_ms=5000, idempotency_key="k")
    assert asyncio.get_running_loop().time() == pytest.approx(5, abs=1e-3)


async def test_the_deadline_is_told_when_its_entry_is_committed(scene: Scene) -> None:
    scene.alpha.will([Hold()])
    scene.store.gate.clear()
    task = asyncio.create_task(failure(scene, timeout_ms=1500))
    await scene.store.appending.wait()
    await idle()
    assert not task.done()
    scene.store.gate.set()
    assert (await task).code == "DEADLINE_EXCEEDED"


async def test_a_timeout_that_is_not_the_deadline_is_a_defect_of_the_provider(scene: Scene) -> None:
    scene.alpha.will([TimeoutError("a socket's")])
    with pytest.raises(TimeoutError, match="a socket's"):
        await scene.complete()
    assert scene.booked("error_code") == [("INTERNAL",)]


async def test_a_defect_in_a_provider_is_booked_and_comes_through(scene: Scene) -> None:
    scene.alpha.will([RuntimeError("a bug")])
    scene.store.gate.clear()
    task = scene.started(fallbacks=(BETA,))
    await scene.store.appending.wait()
    await idle()
    assert not task.done(), "it is told, like everything, when its attempt is committed"
    scene.store.gate.set()
    with pytest.raises(RuntimeError, match="a bug"):
        await task
    assert scene.booked("outcome", "error_code", "estimated") == [(Outcome.FAILED, "INTERNAL", True)]
    assert scene.beta.calls == []


async def test_a_ledger_that_takes_no_note_keeps_the_vendor_from_being_called(scene: Scene) -> None:
    scene.inflight.full = True
    with pytest.raises(ServiceUnavailableError):
        await scene.complete(fallbacks=(BETA,))
    assert (scene.alpha.calls, scene.beta.calls, scene.store.entries) == ([], [], [])


async def test_a_commit_that_fails_fails_the_answer(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold, *texts("hi")], texts("again"))
    task = scene.started()
    await hold.reached.wait()
    scene.store.down = scene.inflight.spool_full = True
    hold.free.set()
    with pytest.raises(ServiceUnavailableError) as caught:
        await task
    assert caught.value.retryable
    scene.store.down = False


@pytest.mark.parametrize("error", [unavailable(retryable=False), RuntimeError("a bug")], ids=["vendor", "bug"])
async def test_a_commit_that_fails_is_what_a_failed_call_tells(scene: Scene, error: Exception) -> None:
    scene.alpha.will([error])
    scene.store.down = scene.inflight.spool_full = True
    with pytest.raises(ServiceUnavailableError):
        await scene.complete()
    scene.store.down = False


async def test_what_the_ledger_cannot_take_is_answered_once_it_is_spooled(scene: Scene) -> None:
    scene.alpha.will(texts("hi"))
    scene.store.down = True
    answer = await scene.complete()
    assert answer.content == "hi"
    assert [entry.outcome for entry in scene.inflight.noted.values()] == [Outcome.SUCCEEDED]
    scene.store.down = False


async def test_what_cannot_be_asked_is_refused_before_anything_else(scene: Scene) -> None:
    with pytest.raises(BadUserInputError):
        await scene.complete(target=Target("nowhere", "m"))
    assert scene.store.entries == []


async def open_circuit(scene: Scene) -> None:
    for _ in range(CIRCUIT_FAILURES):
        scene.alpha.will([ProviderTimeoutError("slow", provider="alpha", sent=False, retry_after=999)])
        await failure(scene)


async def test_an_open_circuit_calls_nobody_and_says_when_to_come_back(scene: Scene) -> None:
    await open_circuit(scene)
    scene.store.entries.clear()
    error = await failure(scene)
    assert (error.code, error.provider, error.attempts) == ("PROVIDER_UNAVAILABLE", "alpha", ())
    assert error.retry_after_ms == pytest.approx(CIRCUIT_OPEN_S * 1000, abs=10)
    assert scene.store.entries == []
    assert len(scene.alpha.calls) == CIRCUIT_FAILURES


async def test_an_open_circuit_leads_to_the_fallback(scene: Scene) -> None:
    await open_circuit(scene)
    scene.beta.will(texts("hi"))
    answer = await scene.complete(fallbacks=(BETA,))
    assert [attempt.provider for attempt in answer.attempts] == ["beta"]


async def test_after_ten_seconds_one_probe_decides(scene: Scene) -> None:
    await open_circuit(scene)
    await asyncio.sleep(CIRCUIT_OPEN_S)
    hold = Hold()
    scene.alpha.will([hold, *texts("back")], texts("and on"))
    probe = scene.started()
    await hold.reached.wait()
    assert (await failure(scene)).code == "PROVIDER_UNAVAILABLE"
    hold.free.set()
    assert (await probe).content == "back"
    assert (await scene.complete()).content == "and on"


@pytest.mark.parametrize("end", ["client left", "deadline", "refused request", "unsupported", "ledger", "bug"])
async def test_a_probe_that_decides_nothing_leaves_its_place_to_the_next(scene: Scene, end: str) -> None:
    await open_circuit(scene)
    await asyncio.sleep(CIRCUIT_OPEN_S)
    endings = {
        "refused request": ProviderInvalidRequestError("no", provider="alpha", status=400),
        "unsupported": UnsupportedFeatureError("seed", provider="alpha", model="a-1"),
        "bug": RuntimeError("a bug"),
    }
    scene.inflight.full = end == "ledger"
    if end != "ledger":
        scene.alpha.will([endings.get(end, Hold())])
    probe = scene.started(timeout_ms=2000)
    await idle()
    if end == "client left":
        probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    scene.inflight.full = False
    scene.alpha.will([STOP])
    assert (await scene.complete()).finish_reason is FinishReason.STOP
