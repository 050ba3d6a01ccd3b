"""Back to a stream that was lost: the same events, the same end, and what happens where they are not kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from persistence.memory_replays import MemoryReplays
from persistence.ports import Replays, StoreUnavailableError
from persistence.records import Outcome
from persistence.shared_records import Replayed
from providers.types import FinishReason, ReasoningDelta, TextDelta, ToolCallDelta
from resolvers.errors import BadUserInputError, DomainError, NotFoundError, ServiceUnavailableError
from resolvers.principal import Principal
from resolvers.recordings import AT_ONCE, FLUSH_S, KEPT_S, LIVE_S, MAX_UNSENT, open_recordings, stream_name
from resolvers.resuming import APPEARS_S, resume
from resolvers.sessions import Sessions, open_sessions
from resolvers.types import (
    CompletionEvent,
    CompletionFailed,
    CompletionFinished,
    CompletionStarted,
    ProviderSwitched,
    TextProduced,
)
from tests.persistence.api_keys import MemoryApiKeys

from .clockwork import idle
from .scene import ACME, BETA, GLOBEX, STOP, Hold, Scene, collected, only, texts, unavailable

SOMEBODY_ELSE = replace(ACME, subject="key_9")


@dataclass
class Away:
    """Replays that can't be reached while `away`."""

    kept: Replays
    away: bool = False
    refused: int = 0

    async def append(self, organisation: str, stream: str, events: Sequence[Replayed], *, seconds: float) -> None:
        self._check()
        await self.kept.append(organisation, stream, events, seconds=seconds)

    async def read(self, organisation: str, stream: str, *, after: int, limit: int) -> Sequence[Replayed] | None:
        self._check()
        return await self.kept.read(organisation, stream, after=after, limit=limit)

    def _check(self) -> None:
        if self.away:
            self.refused += 1
            raise StoreUnavailableError("gone")


def no_sessions() -> Sessions:
    return Sessions(MemoryApiKeys(), lambda: datetime.now(UTC))


@pytest.fixture
def replays(scene: Scene) -> Away:
    recordings = scene.services.recordings
    recordings.replays = away = Away(recordings.replays)
    return away


def resumed(
    scene: Scene, completion_id: str, after: int = 0, principal: Principal = ACME
) -> AsyncGenerator[CompletionEvent, None]:
    return resume(scene.services, principal, completion_id, after)


async def again(scene: Scene, completion_id: str, after: int = 0) -> list[CompletionEvent]:
    return await collected(resumed(scene, completion_id, after))


async def refused(scene: Scene, completion_id: str, after: int = 0, principal: Principal = ACME) -> DomainError:
    with pytest.raises(DomainError) as refusal:
        await collected(resumed(scene, completion_id, after, principal))
    return refusal.value


async def left_after(scene: Scene, kind: type, **changes: Any) -> Any:
    """What a reader saw last before it left: an event of the kind."""
    async with aclosing(scene.stream(**changes)) as events:
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError(f"no {kind.__name__}")


def text_of(events: Sequence[CompletionEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextProduced))


async def test_from_behind_any_event_to_the_same_end(scene: Scene) -> None:
    scene.alpha.will([unavailable(retryable=False)])
    pieces = [(TextDelta(f"{number} "),) for number in range(8)]
    others = [(ReasoningDelta("hm", "signed"), ToolCallDelta(0, "i", "f", "{}"))]
    scene.beta.will([*pieces, *others, *pieces, STOP])
    first = await scene.events(fallbacks=(BETA,))
    started, end = first[0], first[-1]
    assert isinstance(started, CompletionStarted)
    only(first, ProviderSwitched)
    whole = await again(scene, started.completion_id)
    assert (whole[:2], whole[-1], text_of(whole)) == (first[:2], end, text_of(first))
    every = [number for number in range(3, 21) if number not in (11, 12)]  # of the deltas, those with text
    for after in range(end.sequence):
        events = await again(scene, started.completion_id, after)
        sequences = [event.sequence for event in events]
        assert sequences == sorted(set(sequences))
        assert sequences[0] > after
        assert events[-1] == end
        seen = [number for number in every if number > after]
        assert text_of(events) == text_of(first)[len(text_of(first)) - 2 * len(seen) :]
    assert await again(scene, started.completion_id, end.sequence) == []
    assert await again(scene, started.completion_id, 2**31 - 1) == []


async def test_while_it_goes_on(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([(TextDelta("one "),), hold, (TextDelta("two"),), STOP])
    reading = asyncio.create_task(scene.events())
    await hold.reached.wait()
    (running,) = scene.services.running._by_id.values()
    seen: list[CompletionEvent] = []
    async with aclosing(resumed(scene, running.completion_id)) as events:
        async for event in events:
            seen.append(event)
            if text_of(seen) == "one ":
                hold.free.set()
    first = await reading
    assert (text_of(seen), seen[-1]) == (text_of(first), first[-1])


async def test_a_stream_whose_reader_left_ends_as_cancelled_once_that_is_booked(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([(TextDelta("one "),), (TextDelta("two "),), hold])
    scene.store.gate.clear()
    seen = await left_after(scene, TextProduced)
    following = asyncio.create_task(again(scene, seen.completion_id, seen.sequence))
    await asyncio.sleep(5)
    assert not following.done(), "nothing ends before its entries are committed"
    scene.store.gate.set()
    events = await following
    assert text_of([seen, *events]) == "one two "
    answer = only(events, CompletionFinished).completion
    assert (answer.content, answer.finish_reason) == ("one two ", FinishReason.CANCELLED)
    assert answer.usage.estimated
    assert scene.booked("outcome") == [(Outcome.CANCELLED,)]


async def test_a_detached_stream_goes_on_without_a_reader(scene: Scene) -> None:
    hold = Hold()
    more = [(TextDelta("x" * 1024),) for _ in range(100)]  # more than waits for a reader that stays
    scene.alpha.will([(TextDelta("one "),), hold, *more, STOP])
    async with aclosing(scene.stream(detached=True)) as events:
        seen = [await anext(events), await anext(events)]
    assert scene.alpha.endings == [None]
    following = asyncio.create_task(again(scene, seen[0].completion_id, seen[1].sequence))
    await idle()
    hold.free.set()
    rest = await following
    assert text_of([*seen, *rest]) == "one " + "x" * 1024 * 100
    assert only(rest, CompletionFinished).completion.finish_reason is FinishReason.STOP
    assert scene.booked("outcome", "output_tokens", "estimated") == [(Outcome.SUCCEEDED, 2, False)]


async def test_a_detached_stream_is_cancelled_by_its_id_and_by_its_deadline(scene: Scene) -> None:
    scene.alpha.will([(TextDelta("one"),), Hold()], [(TextDelta("two"),), Hold()])
    async with aclosing(scene.stream(detached=True)) as events:
        one = await anext(events)
    assert await scene.cancel(id=one.completion_id) == (one.completion_id, True)
    assert only(await again(scene, one.completion_id), CompletionFinished).completion.content == "one"
    async with aclosing(scene.stream(detached=True, timeout_ms=5000)) as events:
        two = await anext(events)
    assert only(await again(scene, two.completion_id), CompletionFailed).code == "DEADLINE_EXCEEDED"
    assert scene.alpha.endings == ["CancelledError"] * 2


@pytest.mark.parametrize("read", [True, False])
async def test_a_detached_stream_ends_with_the_key_that_began_it(scene: Scene, read: bool) -> None:
    """Nobody is connected by it any more; or somebody is, whose connection ends at the same moment."""
    store, keyed = MemoryApiKeys(), replace(ACME, key_id="key_gone")
    replays, clock = MemoryReplays(asyncio.get_running_loop().time), asyncio.get_running_loop().time
    async with (
        open_sessions(store, lambda: datetime.now(UTC)) as sessions,
        open_recordings(replays, sessions, clock) as ours,
    ):
        scene.services = replace(scene.services, recordings=ours)
        scene.alpha.will([(TextDelta("one"),), Hold()])
        async with aclosing(scene.stream(keyed, detached=True)) as events:
            await anext(events)
            await anext(events)
            if read:
                sessions.suspect("acme", "key_gone")
        await idle()
        assert scene.alpha.endings == ["CancelledError" if read else None]
        sessions.suspect("acme", "key_gone")
        await idle()
        assert scene.alpha.endings == ["CancelledError"]
        await asyncio.sleep(1)
        assert scene.booked("outcome") == [(Outcome.CANCELLED,)]


@pytest.mark.parametrize("bound", ["MAX_DETACHED", "MAX_DETACHED_OF_ONE"])
async def test_of_detached_streams_there_is_a_bound(scene: Scene, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(f"resolvers.recordings.{bound}", 1)
    scene.alpha.will([Hold()], [Hold()])
    ids = []
    for _ in range(2):
        async with aclosing(scene.stream(detached=True)) as events:
            ids.append((await anext(events)).completion_id)
    assert scene.alpha.endings == [None, "CancelledError"]
    assert only(await again(scene, ids[1]), CompletionFinished).completion.finish_reason is FinishReason.CANCELLED
    assert await scene.cancel(id=ids[0]) == (ids[0], True)
    await again(scene, ids[0])


async def test_one_organisation_leaves_room_for_the_detached_streams_of_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.recordings.MAX_DETACHED_OF_ONE", 1)
    scene.alpha.will([Hold()], [Hold()])
    running = []
    for principal in (ACME, GLOBEX):
        async with aclosing(scene.stream(principal, detached=True)) as events:
            running.append((principal, (await anext(events)).completion_id))
    assert scene.alpha.endings == [None, None]
    for principal, completion_id in running:
        assert await scene.cancel(principal, id=completion_id) == (completion_id, True)
    await asyncio.sleep(1)


async def test_a_failure_is_the_end_too(scene: Scene) -> None:
    scene.alpha.will([(TextDelta("four"),), unavailable(retryable=False)])
    first = await scene.events()
    failed = only(first, CompletionFailed)
    assert await again(scene, failed.completion_id, failed.sequence - 1) == [failed]


async def test_nobody_else_finds_it(scene: Scene) -> None:
    scene.alpha.will(texts("mine"))
    end = (await scene.events())[-1]
    for principal in (GLOBEX, SOMEBODY_ELSE):
        assert isinstance(await refused(scene, end.completion_id, principal=principal), NotFoundError)
    assert isinstance(await refused(scene, "cmp_of_nobody"), NotFoundError)
    refusal = await refused(scene, end.completion_id, -1)
    assert isinstance(refusal, BadUserInputError)
    assert refusal.path == ("after",)
    assert await again(scene, end.completion_id)


async def test_it_is_kept_for_a_while(scene: Scene) -> None:
    scene.alpha.will(texts("one"))
    end = (await scene.events())[-1]
    await asyncio.sleep(KEPT_S - 1)
    assert (await again(scene, end.completion_id))[-1] == end
    await asyncio.sleep(2)
    assert isinstance(await refused(scene, end.completion_id), NotFoundError)


async def test_a_vendor_that_says_nothing_for_long(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold, (TextDelta("at last"),), STOP])
    async with aclosing(scene.stream(detached=True)) as events:
        started = await anext(events)
    await asyncio.sleep(3 * LIVE_S)
    following = asyncio.create_task(again(scene, started.completion_id))
    await idle()
    hold.free.set()
    assert text_of(await following) == "at last"


async def test_a_process_that_is_gone_leaves_no_reader_waiting(scene: Scene) -> None:
    """Of the one that is killed nothing more is heard."""
    replays = scene.services.recordings.replays
    async with open_recordings(replays, no_sessions(), asyncio.get_running_loop().time) as theirs:
        recording = theirs.recording("acme", ACME.subject, "cmp_1")
        recording.put(CompletionStarted("cmp_1", 1, "alpha", "a-1"))
        await asyncio.sleep(2 * FLUSH_S)
        before = asyncio.get_running_loop().time()
        recording.give_up()
        assert isinstance(await refused(scene, "cmp_1", 1), ServiceUnavailableError)
        assert LIVE_S / 2 < asyncio.get_running_loop().time() - before <= LIVE_S + 1
        assert isinstance(await refused(scene, "cmp_1", 1), NotFoundError)


async def test_a_defect_leaves_no_reader_waiting(scene: Scene) -> None:
    scene.alpha.will([(TextDelta("one"),), RuntimeError("a bug")])
    async with aclosing(scene.stream(detached=True)) as events:
        started = await anext(events)
    assert isinstance(await refused(scene, started.completion_id), ServiceUnavailableError | NotFoundError)


async def test_replays_that_are_away_for_a_while_lose_nothing(scene: Scene, replays: Away) -> None:
    one, two = Hold(), Hold()
    scene.alpha.will([(TextDelta("one "),), one, (TextDelta("two "),), two, (TextDelta("three"),), STOP])
    async with aclosing(scene.stream(detached=True)) as events:
        started = await anext(events)
    await asyncio.sleep(2 * FLUSH_S)
    following = asyncio.create_task(again(scene, started.completion_id))
    await asyncio.sleep(1)
    replays.away = True
    one.free.set()
    await asyncio.sleep(LIVE_S / 2)
    assert isinstance(await refused(scene, started.completion_id), ServiceUnavailableError)
    replays.away = False
    two.free.set()
    events_seen = await following
    assert text_of(events_seen) == "one two three"
    only(events_seen, CompletionFinished)


async def test_replays_that_stay_away_keep_neither_reader_nor_events(
    scene: Scene, replays: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream itself does not mind."""
    hold = Hold()
    scene.alpha.will([(TextDelta("one "),), hold, *((TextDelta("x" * 1000),) for _ in range(2000)), STOP])
    reading = asyncio.create_task(scene.events())
    await hold.reached.wait()
    (running,) = scene.services.running._by_id.values()
    await asyncio.sleep(2 * FLUSH_S)
    following = asyncio.create_task(refused(scene, running.completion_id))
    await asyncio.sleep(1)
    replays.away = True
    hold.free.set()
    assert len(text_of(await reading)) == 2_000_004 > MAX_UNSENT
    assert isinstance(await following, ServiceUnavailableError)
    assert scene.services.recordings._running == {}
    replays.away = False
    assert isinstance(await refused(scene, running.completion_id), NotFoundError)


async def test_replays_that_are_away_are_asked_now_and_then_whatever_number_of_streams(
    scene: Scene, replays: Away
) -> None:
    hold = Hold()
    scene.alpha.will(*([hold, STOP] for _ in range(100)))
    replays.away = True
    reading = [asyncio.create_task(scene.events()) for _ in range(100)]
    await hold.reached.wait()
    await asyncio.sleep(10)
    assert 5 <= replays.refused <= 10 * AT_ONCE
    replays.away = False
    hold.free.set()
    for events in await asyncio.gather(*reading):
        assert (await again(scene, events[0].completion_id))[-1] == events[-1]


async def test_what_is_missing_is_told(scene: Scene) -> None:
    replays = scene.services.recordings.replays
    async with open_recordings(replays, no_sessions(), asyncio.get_running_loop().time) as theirs:
        recording = theirs.recording("acme", ACME.subject, "cmp_1")
        recording.put(TextProduced("cmp_1", 5, "five"))
        await asyncio.sleep(2 * FLUSH_S)
        await replays.append("acme", stream_name(ACME.subject, "cmp_1"), [], seconds=0.01)
        await asyncio.sleep(1)  # forgotten, and begun anew in its midst
        recording.end(TextProduced("cmp_1", 6, "six"))
        await asyncio.sleep(2 * FLUSH_S)
    for after in range(5):
        assert isinstance(await refused(scene, "cmp_1", after), NotFoundError)
    assert text_of(await again(scene, "cmp_1", 5)) == "six"
    await replays.append("acme", stream_name(ACME.subject, "cmp_2"), [Replayed(1, '[0,["Sung",{}]]')], seconds=9)
    assert isinstance(await refused(scene, "cmp_2"), ServiceUnavailableError)


async def test_one_that_has_just_begun_is_waited_for(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold, STOP])
    async with aclosing(scene.stream(detached=True)) as events:
        started = await anext(events)
        async with aclosing(resumed(scene, started.completion_id)) as found:
            assert await anext(found) == started
        before = asyncio.get_running_loop().time()
        await refused(scene, "cmp_of_nobody")
        assert asyncio.get_running_loop().time() - before < 2 * APPEARS_S
    hold.free.set()
    await again(scene, started.completion_id)


async def test_at_the_end_of_a_process_its_detached_streams_end_and_are_told_of(scene: Scene) -> None:
    replays = MemoryReplays(asyncio.get_running_loop().time)
    async with open_recordings(replays, no_sessions(), asyncio.get_running_loop().time) as ours:
        scene.services = replace(scene.services, recordings=ours)
        scene.alpha.will([(TextDelta("one"),), Hold()])
        async with aclosing(scene.stream(detached=True)) as events:
            started = await anext(events)
        await idle()
    assert scene.alpha.endings == ["CancelledError"]
    assert only(await again(scene, started.completion_id), CompletionFinished).completion.content == "one"
    assert scene.booked("outcome") == [(Outcome.CANCELLED,)]
