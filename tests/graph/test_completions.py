"""Completions through the schema: what the ledger has is read back whole, and bad input is named where it stands."""

from __future__ import annotations

from dataclasses import fields, replace
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest

from persistence.records import CostSource, LedgerEntry, Outcome
from providers.types import (
    Citation,
    Cited,
    FilePart,
    Finished,
    FinishReason,
    ImagePart,
    Media,
    Message,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningEffort,
    ResponseFormat,
    Role,
    TextDelta,
    TextPart,
    TokenLogprob,
    ToolCall,
    Weighed,
)
from tests.persistence.entries import entry
from tests.resolvers.scene import texts, unavailable

from .stage import Stage, refusals

ATTEMPTS = """
attempts {
  number provider model outcome errorCode latencyMs timeToFirstTokenMs priceVersion
  usage { inputTokens outputTokens cachedInputTokens cacheWriteTokens reasoningTokens cost costSource estimated }
}
"""
RECORD = f"""
id createdAt provider model outcome errorCode finishReason streamed cached organisation principal endUser idempotencyKey
config configVersion labels {{ name value }} usage {{ cost costSource }} {ATTEMPTS}
"""
ONE = f"query ($by: CompletionRef!) {{ completion(by: $by) {{ {RECORD} }} }}"
PAGE = f"{{ completions {{ nodes {{ {RECORD} }} }} }}"
COMPLETE = f"mutation ($input: CompleteInput!) {{ complete(input: $input) {{ content {ATTEMPTS} }} }}"
ASKED = {"model": "alpha/a-1", "messages": [{"role": "USER", "content": "hello"}]}

TOLD: dict[str, tuple[tuple[str | int, ...], Any]] = {
    "time": (("createdAt",), "2026-03-01T12:00:00+00:00"),
    "completion_id": (("id",), "cmp_1"),
    "attempt": (("attempts", 0, "number"), 1),
    "organisation": (("organisation",), "acme"),
    "principal": (("principal",), "key_9"),
    "provider": (("attempts", 0, "provider"), "groq"),
    "model": (("attempts", 0, "model"), "llama"),
    "outcome": (("attempts", 0, "outcome"), "FAILED"),
    "end_user": (("endUser",), "u1"),
    "config": (("config",), "support"),
    "config_version": (("configVersion",), 7),
    "idempotency_key": (("idempotencyKey",), "k1"),
    "input_tokens": (("attempts", 0, "usage", "inputTokens"), 2**40),
    "output_tokens": (("attempts", 0, "usage", "outputTokens"), 21),
    "cached_input_tokens": (("attempts", 0, "usage", "cachedInputTokens"), 22),
    "cache_write_tokens": (("attempts", 0, "usage", "cacheWriteTokens"), 23),
    "reasoning_tokens": (("attempts", 0, "usage", "reasoningTokens"), 24),
    "cost": (("attempts", 0, "usage", "cost"), "0.0000006"),
    "cost_source": (("attempts", 0, "usage", "costSource"), "PRICE_TABLE"),
    "price_version": (("attempts", 0, "priceVersion"), "2026-03"),
    "latency_ms": (("attempts", 0, "latencyMs"), 31),
    "time_to_first_token_ms": (("attempts", 0, "timeToFirstTokenMs"), 32),
    "finish_reason": (("finishReason",), "LENGTH"),
    "error_code": (("attempts", 0, "errorCode"), "PROVIDER_TIMEOUT"),
    "estimated": (("attempts", 0, "usage", "estimated"), True),
    "cached": (("cached",), True),
    "streamed": (("streamed",), True),
    "labels": (("labels",), [{"name": "team", "value": "search"}]),
}
"""Field of the entry → where the record tells it, and how."""

OF_CORRECTIONS = {"corrects", "settles_cost", "settles_estimate", "corrected_by", "corrected_at", "note"}

ENTRY = entry(
    completion_id="cmp_1",
    principal="key_9",
    provider="groq",
    model="llama",
    outcome=Outcome.FAILED,
    end_user="u1",
    config="support",
    config_version=7,
    idempotency_key="k1",
    input_tokens=2**40,
    output_tokens=21,
    cached_input_tokens=22,
    cache_write_tokens=23,
    reasoning_tokens=24,
    cost=Decimal("6E-7"),
    price_version="2026-03",
    latency_ms=31,
    time_to_first_token_ms=32,
    finish_reason="length",
    error_code="PROVIDER_TIMEOUT",
    estimated=True,
    cached=True,
    streamed=True,
    labels={"team": "search"},
)


async def test_the_ledgers_entry_is_read_back_whole(stage: Stage) -> None:
    stage.scene.store.entries = [ENTRY]
    one, errors = await stage.ask(ONE, {"by": {"id": "cmp_1"}})
    page, more_errors = await stage.ask(PAGE)
    assert errors == more_errors == []
    assert one is not None
    assert page == {"completions": {"nodes": [one["completion"]]}}
    assert set(TOLD) | OF_CORRECTIONS == {each.name for each in fields(LedgerEntry)}
    for name, (path, value) in TOLD.items():
        assert reduce(lambda place, step: place[step], path, one["completion"]) == value, name  # type: ignore[index]


async def test_every_attempt_has_its_own_figures(stage: Stage) -> None:
    last = replace(
        ENTRY,
        attempt=2,
        outcome=Outcome.SUCCEEDED,
        error_code=None,
        cost=Decimal("1E+1"),
        cost_source=CostSource.PROVIDER,
    )
    stage.scene.store.entries = [ENTRY, replace(last, price_version=None, config=None, config_version=None)]
    data, _ = await stage.ask(ONE, {"by": {"idempotencyKey": "k1"}})
    assert data is not None
    record = data["completion"]
    assert [(each["number"], each["usage"]["cost"], each["priceVersion"]) for each in record["attempts"]] == [
        (1, "0.0000006", "2026-03"),
        (2, "10", None),
    ]
    assert record["usage"] == {"cost": "10.0000006", "costSource": "PROVIDER"}
    assert (record["config"], record["configVersion"]) == (None, None)


async def test_an_answer_tells_what_each_of_its_attempts_cost(stage: Stage) -> None:
    stage.scene.alpha.will([unavailable()], texts("Hi."))
    data, errors = await stage.ask(COMPLETE, {"input": ASKED})
    assert errors == []
    assert data is not None
    first, second = data["complete"]["attempts"]
    assert (first["number"], first["usage"]["cost"], first["usage"]["costSource"]) == (1, "0", "NOT_BILLED")
    assert (second["number"], second["usage"]["inputTokens"], second["usage"]["outputTokens"]) == (2, 7, 2)
    assert (second["usage"]["cost"], second["usage"]["costSource"]) == (None, "UNKNOWN")
    assert first["priceVersion"] is None
    assert second["priceVersion"].startswith("genai-prices/")


SPAN = {"since": "2026-01-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"}
NAIVE = "2026-01-15T00:00:00"
LABELS = [{"name": "a", "value": "1"}, {"name": "b", "value": "1"}, {"name": "a", "value": "1"}]
USAGE = "query ($given: UsageInput!) { usage(input: $given) { since } }"
LIST = "query ($given: CompletionFilter) { completions(filter: $given) { nodes { id } } }"
ASK = "mutation ($given: CompleteInput!) { complete(input: $given) { id } }"


@pytest.mark.parametrize(
    ("query", "given", "path"),
    [
        (USAGE, {**SPAN, "since": NAIVE}, ["input", "since"]),
        (USAGE, {**SPAN, "until": NAIVE}, ["input", "until"]),
        (USAGE, {"since": SPAN["until"], "until": SPAN["since"]}, ["input", "until"]),
        (LIST, {**SPAN, "since": NAIVE}, ["filter", "since"]),
        (LIST, {**SPAN, "until": NAIVE}, ["filter", "until"]),
        (ASK, {**ASKED, "labels": LABELS}, ["input", "labels", 2, "name"]),
        (ASK, {**ASKED, "stop": ["x", ""]}, ["input", "stop", 1]),
    ],
)
async def test_bad_input_is_named_where_it_stands(
    stage: Stage, query: str, given: dict[str, Any], path: list[str | int]
) -> None:
    data, errors = await stage.ask(query, {"given": given})
    assert refusals(errors) == [("BAD_USER_INPUT", path)]
    assert set((data or {}).values()) == {None}
    assert stage.scene.alpha.calls == []


async def test_labels_are_booked_as_they_were_given(stage: Stage) -> None:
    stage.scene.alpha.will(texts("Hi."))
    _, errors = await stage.ask(ASK, {"given": {**ASKED, "labels": LABELS[:2]}})
    assert errors == []
    assert stage.scene.booked("labels") == [({"a": "1", "b": "1"},)]


WHOLE = """mutation ($input: CompleteInput!) { complete(input: $input) {
  content parsed reasoning reasoningBlocks { text signature } citations { url title quote start end }
  logprobs { token logprob likeliest { token logprob } }
} }"""
RICH_INPUT: dict[str, Any] = {
    "model": "alpha/a-1",
    "messages": [
        {
            "role": "USER",
            "parts": [
                {"text": "What is it?"},
                {"image": {"data": "aGk=", "mediaType": "image/png"}},
                {"file": {"url": "https://example.com/a.pdf", "mediaType": "application/pdf", "name": "a.pdf"}},
            ],
            "cache": True,
        },
        {
            "role": "ASSISTANT",
            "toolCalls": [{"id": "c", "name": "f", "arguments": "{}"}],
            "reasoning": [{"text": "hm", "signature": "s"}],
        },
        {"role": "TOOL", "content": "broken", "toolCallId": "c", "isError": True},
    ],
    "responseFormat": {"jsonSchema": {"schema": {"type": "object"}, "name": "thing", "strict": False}},
    "reasoningEffort": "HIGH",
    "logprobs": 2,
}


async def test_all_that_can_be_asked_reaches_the_vendor_and_all_that_it_tells_comes_back(stage: Stage) -> None:
    stage.scene.alpha.will(
        [
            (ReasoningDelta("hm", "sig"), TextDelta('{"a": 1}'), Cited(Citation("https://x", "X", "q", 0, 1))),
            (Weighed((TokenLogprob("{", -0.5, (("{", -0.5), ("[", -2.0))),)),),
            (Finished(FinishReason.STOP),),
        ]
    )
    data, errors = await stage.ask(WHOLE, {"input": RICH_INPUT})
    assert errors == []
    assert data is not None
    assert data["complete"] == {
        "content": '{"a": 1}',
        "parsed": {"a": 1},
        "reasoning": "hm",
        "reasoningBlocks": [{"text": "hm", "signature": "sig"}],
        "citations": [{"url": "https://x", "title": "X", "quote": "q", "start": 0, "end": 1}],
        "logprobs": [
            {
                "token": "{",
                "logprob": -0.5,
                "likeliest": [{"token": "{", "logprob": -0.5}, {"token": "[", "logprob": -2.0}],
            }
        ],
    }
    (call,) = stage.scene.alpha.calls
    assert call.request.messages == (
        Message(
            Role.USER,
            parts=(
                TextPart("What is it?"),
                ImagePart(Media(data="aGk=", media_type="image/png")),
                FilePart(Media("https://example.com/a.pdf", None, "application/pdf", "a.pdf")),
            ),
            cache=True,
        ),
        Message(Role.ASSISTANT, None, (ToolCall("c", "f", "{}"),), reasoning=(ReasoningBlock("hm", "s"),)),
        Message(Role.TOOL, "broken", tool_call_id="c", is_error=True),
    )
    assert call.request.response_format == ResponseFormat({"type": "object"}, "thing", strict=False)
    assert (call.request.reasoning_effort, call.request.logprobs) == (ReasoningEffort.HIGH, 2)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"responseFormat": {"json": False}}, ["responseFormat", "json"]),
        ({"responseFormat": {"jsonSchema": {"schema": []}}}, ["responseFormat", "jsonSchema", "schema"]),
        ({"responseFormat": {"jsonSchema": {"schema": {"type": 1}}}}, ["responseFormat", "jsonSchema", "schema"]),
        ({"responseFormat": {"jsonSchema": {"schema": {}, "name": "a b"}}}, ["responseFormat", "jsonSchema", "name"]),
        ({"logprobs": 21}, ["logprobs"]),
        ({"messages": [{"role": "USER", "parts": [{"image": {}}]}]}, ["messages", 0, "parts", 0, "image"]),
    ],
)
async def test_what_no_answer_can_be_is_named_where_it_stands(
    stage: Stage, changes: dict[str, Any], path: list[Any]
) -> None:
    _, errors = await stage.ask(WHOLE, {"input": ASKED | changes})
    assert refusals(errors) == [("BAD_USER_INPUT", ["input", *path])]


async def test_an_answer_that_is_not_as_asked_keeps_its_text(stage: Stage) -> None:
    stage.scene.alpha.will(texts("Rome"))
    _, errors = await stage.ask(WHOLE, {"input": ASKED | {"responseFormat": {"json": True}}})
    (error,) = errors
    assert (error["extensions"]["code"], error["extensions"]["content"]) == ("PROVIDER_BAD_RESPONSE", "Rome")
    stage.scene.alpha.will(texts("Rome"))
    failed = "... on CompletionFailure { content }"
    many = f"mutation ($inputs: [CompleteInput!]!) {{ completeMany(inputs: $inputs) {{ {failed} }} }}"
    data, errors = await stage.ask(many, {"inputs": [ASKED | {"responseFormat": {"json": True}}]})
    assert (data, errors) == ({"completeMany": [{"content": "Rome"}]}, [])
