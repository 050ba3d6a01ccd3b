from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from providers.fold import Fold, fold
from providers.types import (
    Citation,
    Cited,
    Finished,
    FinishReason,
    ProviderCompletion,
    ReasoningBlock,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
    Weighed,
)


def test_nothing_folds_to_nothing() -> None:
    assert fold([]) == ProviderCompletion()


def test_every_kind_of_event_has_its_place() -> None:
    usage = Usage(3, 5)
    events: list[StreamEvent] = [
        ReasoningDelta("hm"),
        ReasoningDelta("!"),
        TextDelta("a"),
        ToolCallDelta(1, id="two", name="second", arguments="{"),
        ToolCallDelta(0, id="one", name="first"),
        TextDelta("b"),
        ToolCallDelta(1, arguments="}"),
        Finished(finish_reason=FinishReason.TOOL_CALLS, model="m-1"),
        Finished(usage=usage),
    ]
    assert fold(events) == ProviderCompletion(
        content="ab",
        reasoning="hm!",
        tool_calls=(ToolCall("one", "first", ""), ToolCall("two", "second", "{}")),
        finish_reason=FinishReason.TOOL_CALLS,
        usage=usage,
        model="m-1",
    )


def test_the_last_figure_wins_and_silence_does_not() -> None:
    first, last = Usage(1, 1), Usage(1, 9)
    answer = fold([Finished(usage=first, model="m"), Finished(usage=last), Finished(finish_reason=FinishReason.STOP)])
    assert (answer.usage, answer.model, answer.finish_reason) == (last, "m", FinishReason.STOP)


def test_a_tool_call_keeps_its_first_id_and_name() -> None:
    events = [ToolCallDelta(0, id="a", name="x"), ToolCallDelta(0, id="b", name="y", arguments="1")]
    assert fold(events).tool_calls == (ToolCall("a", "x", "1"),)


def test_an_empty_text_is_a_text() -> None:
    assert fold([TextDelta("")]).content == ""


def test_produced_bytes_count_utf8_of_everything_written() -> None:
    partial = Fold()
    for event in (TextDelta("ü"), ReasoningDelta("🌸"), ToolCallDelta(0, id="ignored", name="ab", arguments="{}")):
        partial.add(event)
    assert partial.produced_bytes == 2 + 4 + 2 + 2
    assert (partial.thought_bytes, partial.pieces) == (4, 3)


@given(st.text(), st.lists(st.integers(0, 50), max_size=10))
def test_pieces_of_a_text_fold_to_the_text(text: str, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:stop] for start, stop in pairwise(bounds)]
    assert fold(map(TextDelta, pieces)).content == text
    assert (
        "".join(call.arguments for call in fold(ToolCallDelta(0, arguments=each) for each in pieces).tool_calls) == text
    )


def test_reasoning_is_kept_in_the_blocks_that_signatures_close() -> None:
    answer = fold(
        [
            ReasoningDelta("a"),
            ReasoningDelta("b", "s1"),
            ReasoningDelta("", "s2"),
            TextDelta("so"),
            ReasoningDelta("c"),
        ]
    )
    assert answer.reasoning == "abc"
    assert answer.reasoning_blocks == (ReasoningBlock("ab", "s1"), ReasoningBlock("", "s2"))


def test_citations_and_log_probabilities_are_kept_in_order() -> None:
    one, other = Citation(url="https://a"), Citation(url="https://b")
    tokens = TokenLogprob("Hi", -0.5, (("Hi", -0.5), ("Ho", -1.5))), TokenLogprob("!", -0.1)
    answer = fold([Cited(one), Weighed(tokens[:1]), TextDelta("Hi!"), Cited(other), Weighed(tokens[1:])])
    assert answer.citations == (one, other)
    assert answer.logprobs == tokens
