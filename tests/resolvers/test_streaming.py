"""A stream: its events, its one end, its reader's pace, and what is booked when it is cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.records import CostSource, Outcome
from providers.errors import ProviderBadResponseError, ProviderInvalidRequestError, UnsupportedFeatureError
from providers.types import Finished, FinishReason, ReasoningDelta, TextDelta, ToolCall, ToolCallDelta, Usage
from resolvers.errors import BadUserInputError, ConflictError
from resolvers.mailbox import MAX_WAITING_CHARACTERS
from resolvers.types import (
    CompletionEvent,
    CompletionFailed,
    CompletionFinished,
    CompletionStarted,
    ProviderSwitched,
    ReasoningProduced,
    Target,
    TextProduced,
    ToolCallProduced,
)
from resolvers.unseen import GOES_ON_TOKENS

from .clockwork import idle
from .scene import BETA, STOP, Hold, Scene, collected, only, open_scene, other_tasks, texts, unavailable

Events = AsyncGenerator[CompletionEvent, None]


def kinds(events: list[CompletionEvent]) -> list[type]:
    return [type(event) for event in events]


def text_of(events: list[CompletionEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextProduced))


async def until(events: Events, kind: type) -> Any:
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__}")


async def test_events_in_their_order(scene: Scene) -> None:
    scene.alpha.will(
        [(ReasoningDelta("hm"),), (TextDelta("hi "), TextDelta("there")), (ToolCallDelta(0, "i", "f", "{}"),), STOP]
    )
    events = await scene.events()
    started, finished = events[0], events[-1]
    assert kinds(events) == [
        CompletionStarted,
        ReasoningProduced,
        TextProduced,
        ToolCallProduced,
        CompletionFinished,
    ]
    assert isinstance(started, CompletionStarted)
    assert (started.provider, started.model, started.sequence) == ("alpha", "a-1", 1)
    assert isinstance(finished, CompletionFinished)
    answer = finished.completion
    assert (answer.content, answer.reasoning, answer.finish_reason) == ("hi there", "hm", FinishReason.STOP)
    assert answer.tool_calls == (ToolCall("i", "f", "{}"),)
    assert {event.completion_id for event in events} == {answer.id}
    assert scene.booked("outcome", "streamed", "input_tokens", "estimated") == [(Outcome.SUCCEEDED, True, 7, False)]


async def test_times_to_the_first_token(scene: Scene) -> None:
    async def after(seconds: float, hold: Hold) -> None:
        await hold.reached.wait()
        await asyncio.sleep(seconds)
        hold.free.set()

    first, second = Hold(), Hold()
    scene.alpha.will([unavailable(retryable=False)])
    scene.beta.will([first, (TextDelta("a"),), second, (TextDelta("b"),), STOP])
    scene.jitter[0] = 0.5
    async with asyncio.TaskGroup() as vendors:
        vendors.create_task(after(0.25, first))
        vendors.create_task(after(1.0, second))
        events = await scene.events(fallbacks=(BETA,))
    answer = only(events, CompletionFinished).completion
    assert (answer.time_to_first_token_ms, answer.latency_ms) == (250, 1250)
    assert scene.booked("time_to_first_token_ms", "latency_ms") == [(None, 0), (250, 1250)]


@given(
    chunks=st.lists(st.lists(st.text(max_size=5), min_size=1, max_size=4), max_size=12),
    pace=st.lists(st.booleans(), min_size=1, max_size=10),
)
@settings(max_examples=60)
async def test_the_text_is_the_same_whatever_the_chunks_and_the_readers_pace(
    chunks: list[list[str]], pace: list[bool]
) -> None:
    async with open_scene() as scene:
        scene.alpha.will([*([TextDelta(piece) for piece in chunk] for chunk in chunks), STOP])
        events: list[CompletionEvent] = []
        async with aclosing(scene.stream()) as stream:
            async for event in stream:
                events.append(event)
                if pace[len(events) % len(pace)]:
                    await idle()
        whole = "".join(piece for chunk in chunks for piece in chunk)
        assert text_of(events) == whole
        assert (only(events, CompletionFinished).completion.content or "") == whole
        sequences = [event.sequence for event in events]
        assert sequences == sorted(set(sequences))
        assert sequences[-1] == 3 + sum(map(len, chunks)), "started, every source event, the vendor's end, ours"


async def test_a_slow_reader_gets_fewer_and_larger_events(scene: Scene) -> None:
    scene.alpha.will([*([TextDelta(f"{n} ")] for n in range(1000)), STOP])
    async with aclosing(scene.stream()) as stream:
        await until(stream, CompletionStarted)
        await idle()
        assert scene.alpha.endings == ["whole"], "a slow reader does not hold up the vendor"
        rest = [event async for event in stream]
    assert kinds(rest) == [TextProduced, CompletionFinished]
    assert text_of(rest) == "".join(f"{n} " for n in range(1000))


async def test_a_vendor_that_writes_without_end_waits_for_the_reader(scene: Scene) -> None:
    piece = "x" * 1024
    scene.alpha.will([*([TextDelta(piece)] for _ in range(1000)), STOP])
    waiting = 0
    async with aclosing(scene.stream()) as stream:
        await until(stream, CompletionStarted)
        await idle()
        assert scene.alpha.endings == [None], "still writing"
        waiting = len((await until(stream, TextProduced)).text)
        rest = [event async for event in stream]
    assert waiting <= MAX_WAITING_CHARACTERS + len(piece)
    assert waiting + len(text_of(rest)) == 1000 * 1024
    assert kinds(rest)[-1] is CompletionFinished


async def test_a_fallback_before_the_first_delta_is_told(scene: Scene) -> None:
    scene.alpha.will([unavailable()], [unavailable()], [unavailable()])
    scene.beta.will(texts("hi"))
    events = await scene.events(fallbacks=(BETA,))
    assert kinds(events) == [CompletionStarted, ProviderSwitched, TextProduced, CompletionFinished]
    switched = only(events, ProviderSwitched)
    assert (switched.provider, switched.model, switched.error_code) == ("beta", "b-1", "PROVIDER_UNAVAILABLE")
    assert scene.booked("attempt", "provider", "cost_source") == [
        *((n, "alpha", CostSource.NOT_BILLED) for n in (1, 2, 3)),
        (4, "beta", CostSource.UNKNOWN),
    ]


async def test_usage_before_the_first_delta_does_not_bind_the_stream_to_its_vendor(scene: Scene) -> None:
    scene.alpha.will([(Finished(usage=Usage(7, 1)),), unavailable(status=200)], texts("hi"))
    events = await scene.events()
    assert kinds(events) == [CompletionStarted, TextProduced, CompletionFinished]
    assert scene.booked("input_tokens", "output_tokens", "estimated") == [(7, 1, True), (7, 2, False)]


@pytest.mark.parametrize(
    "delta",
    [TextDelta("four"), ReasoningDelta("four"), ToolCallDelta(0, "i", "four", "")],
    ids=lambda d: type(d).__name__,
)
async def test_after_the_first_delta_there_is_no_second_try(scene: Scene, delta: Any) -> None:
    scene.alpha.will([(delta,), ProviderBadResponseError("cut off", provider="alpha", status=200, retry_after=2)])
    events = await scene.events(fallbacks=(BETA,))
    assert kinds(events)[::2] == [CompletionStarted, CompletionFailed]
    failed = only(events, CompletionFailed)
    assert (failed.code, failed.provider, failed.retryable) == ("PROVIDER_BAD_RESPONSE", "alpha", True)
    assert (failed.retry_after_ms, failed.message) == (2000, "cut off")
    assert [attempt.error_code for attempt in failed.attempts] == ["PROVIDER_BAD_RESPONSE"]
    assert (failed.usage.output_tokens, failed.usage.estimated) == (1, True)
    assert len(scene.alpha.calls) == 1
    assert scene.beta.calls == []
    assert scene.booked("outcome", "output_tokens", "estimated") == [(Outcome.FAILED, 1, True)]


async def test_a_stream_cut_after_the_vendors_figures_is_booked_by_them(scene: Scene) -> None:
    usage = Usage(7, 30, cost=Decimal("0.25"))
    scene.alpha.will([(TextDelta("hi"), Finished(FinishReason.STOP, usage)), unavailable(status=None)])
    failed = only(await scene.events(), CompletionFailed)
    assert (failed.usage.output_tokens, failed.usage.cost, failed.usage.estimated) == (30, Decimal("0.25"), False)


async def test_every_target_failing_ends_in_one_failure(scene: Scene) -> None:
    scene.alpha.will([ProviderInvalidRequestError("no", provider="alpha", status=400)])
    scene.beta.will([ProviderInvalidRequestError("no", provider="beta", status=400)])
    events = await scene.events(fallbacks=(BETA,))
    assert kinds(events) == [CompletionStarted, ProviderSwitched, CompletionFailed]
    assert only(events, CompletionFailed).usage.cost == 0


async def test_an_unsupported_feature_is_a_failure_without_attempts(scene: Scene) -> None:
    scene.alpha.will([UnsupportedFeatureError("seed", provider="alpha", model="a-1")])
    failed = only(await scene.events(fallbacks=(BETA,)), CompletionFailed)
    assert (failed.code, failed.attempts) == ("BAD_USER_INPUT", ())
    assert scene.store.entries == []


async def test_what_cannot_be_asked_is_raised(scene: Scene) -> None:
    with pytest.raises(BadUserInputError):
        await scene.events(target=Target("nowhere", "m"))


async def test_the_end_is_told_when_its_entry_is_committed(scene: Scene) -> None:
    scene.alpha.will(texts("hi"))
    scene.store.gate.clear()
    async with aclosing(scene.stream()) as stream:
        await until(stream, TextProduced)
        end = asyncio.ensure_future(anext(stream))
        await scene.store.appending.wait()
        await idle()
        assert not end.done()
        scene.store.gate.set()
        assert isinstance(await end, CompletionFinished)


@pytest.mark.parametrize("script", [texts("hi"), [unavailable(retryable=False)]], ids=["answer", "failure"])
async def test_a_commit_that_fails_is_the_streams_failure(scene: Scene, script: Any) -> None:
    scene.alpha.will(script)
    scene.store.down = scene.inflight.spool_full = True
    failed = only(await scene.events(), CompletionFailed)
    assert (failed.code, failed.retryable, len(failed.attempts)) == ("SERVICE_UNAVAILABLE", True, 1)
    scene.store.down = False


async def test_a_ledger_that_takes_no_note_is_the_streams_failure(scene: Scene) -> None:
    scene.inflight.full = True
    failed = only(await scene.events(), CompletionFailed)
    assert (failed.code, failed.attempts, scene.alpha.calls) == ("SERVICE_UNAVAILABLE", (), [])


async def test_a_defect_is_raised_after_what_came_before_it(scene: Scene) -> None:
    scene.alpha.will([(TextDelta("four"),), RuntimeError("a bug")])
    stream = scene.stream()
    assert kinds([await anext(stream), await anext(stream)]) == [CompletionStarted, TextProduced]
    with pytest.raises(RuntimeError, match="a bug"):
        await anext(stream)
    assert scene.booked("error_code", "output_tokens", "estimated") == [("INTERNAL", 1 + GOES_ON_TOKENS, True)]


async def test_a_reader_that_leaves_closes_the_vendor_and_is_booked(scene: Scene) -> None:
    hold, before = Hold(), other_tasks()
    scene.alpha.will([(TextDelta("eight by"),), hold])
    stream = scene.stream(idempotency_key="k1")
    await until(stream, TextProduced)
    assert other_tasks() > before
    await stream.aclose()
    assert scene.alpha.endings == ["CancelledError"], "the vendor is left before the generator is closed"
    assert other_tasks() == before
    await idle()
    assert scene.booked("outcome", "error_code", "estimated") == [(Outcome.CANCELLED, None, True)]
    assert scene.booked("output_tokens") == [(2 + GOES_ON_TOKENS,)]


async def test_a_reader_that_leaves_while_the_vendor_waits_for_room(scene: Scene) -> None:
    scene.alpha.will([*([TextDelta("x" * 1024)] for _ in range(1000)), STOP])
    stream = scene.stream()
    await until(stream, CompletionStarted)
    await idle()
    await stream.aclose()
    assert scene.alpha.endings == ["GeneratorExit"]
    await idle()
    assert [outcome for (outcome,) in scene.booked("outcome")] == [Outcome.CANCELLED]


async def test_a_reader_cancelled_while_it_waits(scene: Scene) -> None:
    hold, before = Hold(), other_tasks()
    scene.alpha.will([hold])
    reader = asyncio.create_task(scene.events())
    await hold.reached.wait()
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()
    assert scene.alpha.endings == ["CancelledError"]
    assert other_tasks() == before
    await idle()
    assert scene.booked("outcome") == [(Outcome.CANCELLED,)]


class Lingering(Hold):
    """A vendor whose connection takes its time to close."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = asyncio.Event()

    async def wait(self) -> None:
        try:
            await super().wait()
        finally:
            await self.closed.wait()


async def test_a_reader_cancelled_twice_leaves_its_key_to_the_writer(scene: Scene) -> None:
    hold, before = Lingering(), other_tasks()
    scene.alpha.will([hold])
    reader = asyncio.create_task(scene.events(idempotency_key="k1"))
    await hold.reached.wait()
    for _ in range(2):
        reader.cancel()
        await idle()
    assert reader.cancelled()
    with pytest.raises(ConflictError, match="running"):
        await scene.events(idempotency_key="k1")
    hold.closed.set()
    await idle()
    assert other_tasks() == before
    with pytest.raises(ConflictError, match="ended"):
        await scene.events(idempotency_key="k1")
    assert scene.booked("outcome") == [(Outcome.CANCELLED,)]


async def test_a_reader_that_leaves_after_the_end_changes_nothing(scene: Scene) -> None:
    scene.alpha.will(texts("hi"))
    stream = scene.stream()
    await until(stream, CompletionFinished)
    await stream.aclose()
    assert scene.booked("outcome") == [(Outcome.SUCCEEDED,)]


async def test_a_reader_that_leaves_during_the_commit(scene: Scene) -> None:
    scene.alpha.will(texts("hi"))
    scene.store.gate.clear()
    stream = scene.stream()
    await until(stream, TextProduced)
    await scene.store.appending.wait()
    await stream.aclose()
    scene.store.gate.set()
    await idle()
    assert scene.booked("outcome") == [(Outcome.SUCCEEDED,)]


async def test_a_stream_nobody_reads_asks_nobody(scene: Scene) -> None:
    await scene.stream().aclose()
    assert (scene.alpha.calls, scene.inflight.noted) == ([], {})


async def test_a_cancelled_stream_finishes_with_what_it_has(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([(TextDelta("eight by"), ToolCallDelta(0, "i", "f", "{")), hold])
    reader = asyncio.create_task(scene.events(fallbacks=(BETA,)))
    await hold.reached.wait()
    ((completion_id, _),) = scene.inflight.noted
    assert await scene.cancel(id=completion_id) == (completion_id, True)
    events = await reader
    assert kinds(events) == [CompletionStarted, TextProduced, ToolCallProduced, CompletionFinished]
    answer = only(events, CompletionFinished).completion
    assert (answer.content, answer.finish_reason) == ("eight by", FinishReason.CANCELLED)
    assert answer.tool_calls == (ToolCall("i", "f", "{"),)
    assert answer.usage.estimated
    assert scene.alpha.endings == ["CancelledError"]
    assert scene.booked("outcome", "output_tokens") == [(Outcome.CANCELLED, 3 + GOES_ON_TOKENS)]


@pytest.mark.parametrize("way", ["deadline", "cancel"])
async def test_it_ends_while_its_reader_is_stalled(scene: Scene, way: str) -> None:
    scene.alpha.will([*([TextDelta("x" * 1024)] for _ in range(1000)), STOP])
    async with aclosing(scene.stream(timeout_ms=5000)) as stream:
        completion_id = (await until(stream, CompletionStarted)).completion_id
        await idle()
        if way == "cancel":
            await scene.cancel(id=completion_id)
        await asyncio.sleep(60)
        assert scene.alpha.endings == ["GeneratorExit"]
        assert len(scene.store.entries) == 1, "booked, though the reader has not read on"
        rest = [event async for event in stream]
    assert kinds(rest) == [TextProduced, CompletionFailed if way == "deadline" else CompletionFinished]
    (produced,) = (tokens for (tokens,) in scene.booked("output_tokens"))
    assert produced == len(text_of(rest)) / 4 + GOES_ON_TOKENS


async def test_the_deadline_ends_a_silent_stream_with_one_failure(scene: Scene) -> None:
    scene.alpha.will([(TextDelta("hi"),), Hold()])
    events = await scene.events(timeout_ms=1000)
    assert kinds(events) == [CompletionStarted, TextProduced, CompletionFailed]
    failed = only(events, CompletionFailed)
    assert (failed.code, failed.retryable, failed.provider) == ("DEADLINE_EXCEEDED", True, "alpha")
    assert scene.booked("outcome", "error_code") == [(Outcome.FAILED, "DEADLINE_EXCEEDED")]


async def test_many_streams_at_once_keep_apart(scene: Scene) -> None:
    scene.alpha.will(*(texts(f"{n}", ".") for n in range(50)))
    streams = await asyncio.gather(*(collected(scene.stream()) for _ in range(50)))
    assert {text_of(events) for events in streams} == {f"{n}." for n in range(50)}
    assert len({completion_id for (completion_id,) in scene.booked("completion_id")}) == 50
