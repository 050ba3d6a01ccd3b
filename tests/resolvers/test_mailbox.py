"""Between a vendor that writes and a reader that stalls: nothing lost, nothing reordered, memory bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from hypothesis import given
from hypothesis import strategies as st

from providers.fold import Fold
from providers.types import ReasoningDelta, TextDelta, ToolCallDelta
from resolvers.mailbox import EVENT_WEIGHT, Mailbox
from resolvers.types import (
    CompletionEvent,
    CompletionStarted,
    ProviderSwitched,
    ReasoningProduced,
    TextProduced,
    ToolCallProduced,
)

from .clockwork import idle

pieces = st.text(max_size=4)
bodies = st.one_of(
    pieces.map(lambda text: TextProduced("c", 0, text)),
    st.builds(ReasoningProduced, st.just("c"), st.just(0), pieces, st.sampled_from([None, None, "", "sig"])),
    st.builds(
        ToolCallProduced,
        st.just("c"),
        st.just(0),
        st.integers(0, 1),
        st.sampled_from([None, "", "call_1", "call_2"]),
        st.sampled_from([None, "", "look_up"]),
        pieces,
    ),
    st.just(ProviderSwitched("c", 0, "beta", "b-1", "PROVIDER_TIMEOUT")),
)


def numbered(bodies: Sequence[CompletionEvent]) -> list[CompletionEvent]:
    return [_with_sequence(body, number) for number, body in enumerate(bodies, 1)]


def _with_sequence(event: CompletionEvent, sequence: int) -> CompletionEvent:
    values = {name: getattr(event, name) for name in event.__dataclass_fields__}
    return type(event)(**values | {"sequence": sequence})


def text(sequence: int, content: str) -> TextProduced:
    return TextProduced("c", sequence, content)


def tool(sequence: int, arguments: str, *, index: int = 0, **head: str) -> ToolCallProduced:
    return ToolCallProduced("c", sequence, index, head.get("id"), head.get("name"), arguments)


async def read(mailbox: Mailbox) -> list[CompletionEvent]:
    async with aclosing(mailbox.events()) as events:
        return [event async for event in events]


async def all_at_once(*events: CompletionEvent) -> list[CompletionEvent]:
    """What a reader finds who comes when everything is written."""
    mailbox = Mailbox()
    for event in events:
        mailbox.put(event)
    mailbox.close()
    return await read(mailbox)


def folded(events: Sequence[CompletionEvent]) -> Fold:
    fold = Fold()
    for event in events:
        match event:
            case TextProduced():
                fold.add(TextDelta(event.text))
            case ReasoningProduced():
                fold.add(ReasoningDelta(event.text))
            case ToolCallProduced():
                fold.add(ToolCallDelta(event.index, event.id, event.name, event.arguments))
    return fold


def runs(events: Sequence[CompletionEvent]) -> list[tuple[type, str]]:
    """Adjacent texts of one kind joined: the same for every way to merge them."""
    joined: list[tuple[type, str]] = []
    for event in events:
        if not isinstance(event, TextProduced | ReasoningProduced):
            joined.append((type(event), ""))
        elif joined and joined[-1][0] is type(event):
            joined[-1] = (type(event), joined[-1][1] + event.text)
        else:
            joined.append((type(event), event.text))
    return [each for index, each in enumerate(joined) if not index or each != joined[index - 1]]


@given(st.lists(st.tuples(bodies, st.booleans()), max_size=30))
async def test_the_whole_is_the_same_whatever_the_readers_pace(plan: list[tuple[CompletionEvent, bool]]) -> None:
    """After some events the reader takes what it can, after others it sleeps."""
    written = numbered([body for body, _ in plan])
    mailbox, received = Mailbox(), []
    async with aclosing(mailbox.events()) as events:
        for event, (_, awake) in zip(written, plan, strict=True):
            mailbox.put(event)
            if awake:
                received.append(await anext(events))
        mailbox.close()
        received += [event async for event in events]
    assert folded(received).completion() == folded(written).completion()
    assert runs(received) == runs(written)
    sequences = [event.sequence for event in received]
    assert sequences == sorted(set(sequences))
    assert not written or sequences[-1] == written[-1].sequence


async def test_a_reader_that_keeps_up_gets_each_event_as_it_is() -> None:
    mailbox = Mailbox()
    async with aclosing(mailbox.events()) as events:
        for event in (CompletionStarted("c", 1, "alpha", "a-1"), text(2, "a"), text(3, "b"), tool(4, "{", id="i")):
            mailbox.put(event)
            assert await anext(events) == event


async def test_waiting_texts_travel_as_one_event_that_carries_the_last_number() -> None:
    assert await all_at_once(text(2, "a"), text(3, ""), text(5, "b")) == [text(5, "ab")]


async def test_what_lies_between_two_texts_keeps_them_apart() -> None:
    events = [text(1, "a"), ReasoningProduced("c", 2, "why"), text(3, "b")]
    assert await all_at_once(*events) == events


async def test_a_merged_tool_call_keeps_the_id_and_name_of_its_first_fragment() -> None:
    first, *rest = (tool(1, "", id="call_1", name="look_up"), tool(2, '{"q":'), tool(3, "1}"))
    assert await all_at_once(first, *rest) == [tool(3, '{"q":1}', id="call_1", name="look_up")]


async def test_a_tool_call_without_an_id_keeps_its_name() -> None:
    assert await all_at_once(tool(1, "{", name="look_up"), tool(2, "}")) == [tool(2, "{}", name="look_up")]


async def test_a_vendor_that_repeats_the_id_in_each_fragment_is_merged_too() -> None:
    events = [tool(1, "{", id="call_1", name="look_up"), tool(2, "}", id="call_1", name="look_up")]
    assert await all_at_once(*events) == [tool(2, "{}", id="call_1", name="look_up")]


async def test_two_tool_calls_stay_two() -> None:
    events = [tool(1, "{}", id="call_1", name="f"), tool(2, "{}", index=1, id="call_2", name="f")]
    assert await all_at_once(*events) == events
    events = [tool(1, "{}", id="call_1", name="f"), tool(2, "{}", id="call_2", name="f")]
    assert await all_at_once(*events) == events


async def _stalled_after(
    events: AsyncGenerator[CompletionEvent, None], mailbox: Mailbox, chunk: CompletionEvent
) -> int:
    """How many chunks a writer gets rid of while the reader reads nothing."""
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            mailbox.put(chunk)
            written += 1
            await mailbox.room()

    writer = asyncio.create_task(write())
    await idle()
    stalled_at = written
    await anext(events)
    await idle()
    assert written > stalled_at, "the writer goes on when the reader has read"
    writer.cancel()
    await asyncio.wait([writer])
    return stalled_at


async def test_the_writer_waits_when_a_bound_of_characters_is_passed() -> None:
    mailbox = Mailbox(max_waiting=10_000)
    async with aclosing(mailbox.events()) as events:
        count = await _stalled_after(events, mailbox, text(1, "x" * 1000))
    assert 9_000 < count * 1000 <= 10_000 + 1000


async def test_events_without_text_are_bounded_too() -> None:
    mailbox = Mailbox(max_waiting=100 * EVENT_WEIGHT)
    async with aclosing(mailbox.events()) as events:
        count = await _stalled_after(events, mailbox, ProviderSwitched("c", 1, "beta", "b-1", "PROVIDER_TIMEOUT"))
    assert count == 101


async def test_empty_texts_take_no_room_at_all() -> None:
    mailbox = Mailbox(max_waiting=1000)
    for number in range(10_000):
        mailbox.put(text(number, ""))
    await mailbox.room()
    assert len(mailbox._waiting[0].texts) == 1
    mailbox.close()
    (event,) = await read(mailbox)
    assert event == text(9999, "")


async def test_ids_and_names_of_tool_calls_count() -> None:
    mailbox = Mailbox(max_waiting=10_000)
    for index in range(8):
        mailbox.put(tool(index, "", index=index, id="i" * 500, name="n" * 500))
    await mailbox.room()
    mailbox.put(tool(8, "", index=8, id="i" * 500, name="n" * 500))
    blocked = asyncio.create_task(mailbox.room())
    await idle()
    assert not blocked.done()
    mailbox.close()
    assert len(await read(mailbox)) == 9
    await blocked


async def test_a_single_chunk_larger_than_the_bound_goes_through() -> None:
    mailbox = Mailbox(max_waiting=10)
    mailbox.put(text(1, "x" * 1000))
    writer = asyncio.create_task(mailbox.room())
    async with aclosing(mailbox.events()) as events:
        assert await anext(events) == text(1, "x" * 1000)
        await writer


async def test_closing_ends_the_reader_after_what_waits() -> None:
    mailbox = Mailbox()
    reader = asyncio.create_task(read(mailbox))
    await idle()
    mailbox.put(text(1, "last"))
    mailbox.close()
    assert await reader == [text(1, "last")]


async def test_a_cancelled_reader_leaves_what_waits() -> None:
    mailbox = Mailbox()
    reader = asyncio.create_task(read(mailbox))
    await idle()
    reader.cancel()
    await asyncio.wait([reader])
    mailbox.put(text(1, "kept"))
    mailbox.close()
    assert await read(mailbox) == [text(1, "kept")]
