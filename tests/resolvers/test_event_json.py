"""Events as JSON: each kind comes back as it was, to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.records import CostSource, Outcome
from providers.types import Citation, FinishReason, ReasoningBlock, TokenLogprob, ToolCall
from resolvers.event_json import decoded, encoded
from resolvers.types import (
    Attempt,
    Completion,
    CompletionEvent,
    CompletionFailed,
    CompletionFinished,
    CompletionStarted,
    ProviderSwitched,
    ReasoningProduced,
    TextProduced,
    TokenUsage,
    ToolCallProduced,
)

USAGE = TokenUsage(2**40, 2, 3, 4, 5, Decimal("0.000123000"), CostSource.PRICE_TABLE, estimated=True)
FREE = TokenUsage(0, 0, 0, 0, 0, None, CostSource.UNKNOWN, estimated=False)
ATTEMPTS = (
    Attempt(1, "alpha", "a-1", Outcome.FAILED, "PROVIDER_TIMEOUT", 30, None, FREE, None),
    Attempt(2, "beta", "b-1", Outcome.SUCCEEDED, None, 40, 9, USAGE, "genai-prices/1"),
)
COMPLETION = Completion(
    id="cmp_1",
    provider="beta",
    model="b-1",
    content="1é\n",
    parsed={"list": [1.5, 2**70, None, "1e5"], "true": True},
    reasoning="hm",
    reasoning_blocks=(ReasoningBlock("hm", "signed"),),
    tool_calls=(ToolCall("i", "f", '{"a": 1}', "signed"),),
    citations=(Citation(url="https://example.com", start=1),),
    logprobs=(TokenLogprob("a", -0.1, (("b", -0.2),)),),
    finish_reason=FinishReason.STOP,
    usage=USAGE,
    latency_ms=70,
    time_to_first_token_ms=39,
    attempts=ATTEMPTS,
    cached=False,
    created_at=datetime(2026, 2, 3, 4, 5, 6, 7008, UTC),
)
FAILURE = ("PROVIDER_TIMEOUT", "no answer", "alpha", True, 1500, ATTEMPTS, USAGE, "half")
EVENTS: list[CompletionEvent] = [
    CompletionStarted("cmp_1", 1, "alpha", "a-1"),
    ProviderSwitched("cmp_1", 2, "beta", "b-1", "PROVIDER_TIMEOUT"),
    TextProduced("cmp_1", 3, "1"),
    ReasoningProduced("cmp_1", 4, "hm", "signed"),
    ToolCallProduced("cmp_1", 5, 0, "i", "f", "{}", None),
    CompletionFinished("cmp_1", 7, COMPLETION),
    CompletionFailed("cmp_1", 8, *FAILURE),
]


def test_every_kind() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(CompletionEvent))
    assert decoded(encoded(41, EVENTS)) == (41, EVENTS)
    finished = decoded(encoded(0, EVENTS))[1][5]
    assert isinstance(finished, CompletionFinished)
    assert str(finished.completion.usage.cost) == "0.000123000"
    assert finished.completion.created_at.tzinfo is not None


@given(st.lists(st.text()))
def test_any_text(texts: list[str]) -> None:
    events: list[CompletionEvent] = [TextProduced("cmp_1", number, text) for number, text in enumerate(texts)]
    assert decoded(encoded(0, events)) == (0, events)


@pytest.mark.parametrize("text", ["", "[]", "[0,1]", '[0,["Sung",{}]]', '[0,["TextProduced",{"text":1}]]'])
def test_what_it_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decoded(text)


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        encoded(0, [TextProduced("cmp_1", 1, "\ud800")])
