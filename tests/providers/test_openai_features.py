"""What the transcripts don't show of what the chat-completions vendors offer: refusals, and odd blocks of reasoning."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from providers.compatible import CompatibleCodec
from providers.errors import ProviderBadResponseError, UnsendableRequestError, UnsupportedFeatureError
from providers.features import Feature
from providers.fold import fold
from providers.groq import GroqCodec
from providers.mistral import MistralCodec
from providers.openai_dialect import ChatCompletionsCodec
from providers.openrouter import OpenRouterCodec
from providers.sse import ServerSentEvent
from providers.types import (
    CompletionRequest,
    FilePart,
    Media,
    Message,
    ProviderCompletion,
    ReasoningBlock,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Tool,
)
from tests.conformance.transcripts import transcripts

SHOWN = {
    Feature.IMAGE_DATA: "images",
    Feature.IMAGE_URL: "images",
    Feature.FILE_DATA: "files",
    Feature.FILE_URL: "files",
    Feature.CITED_FILES: "citations",
    Feature.TOOLS: "tool_call",
    Feature.SEED: "parameters",
    Feature.JSON_OBJECT: "json_object",
    Feature.JSON_SCHEMA: "json_schema",
    Feature.REASONING_EFFORT: "reasoning_effort",
    Feature.LOGPROBS: "logprobs",
}
HI = Message(Role.USER, "hi")


def body(codec: ChatCompletionsCodec, model: str = "m", *messages: Message, **fields: Any) -> dict[str, Any]:
    return dict(codec.encode(CompletionRequest(model, messages or (HI,), **fields), stream=False).body)


def streamed(codec: ChatCompletionsCodec, *deltas: dict[str, Any], finish: str | None = "stop") -> ProviderCompletion:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    decoder = codec.decoder()
    return fold(each for one in chunks for each in decoder.feed(ServerSentEvent(orjson.dumps(one).decode())))


@pytest.mark.parametrize(
    "codec", [GroqCodec(), MistralCodec(), OpenRouterCodec(), CompatibleCodec()], ids=lambda codec: codec.provider
)
def test_what_is_offered_is_shown(codec: ChatCompletionsCodec) -> None:
    shown = {each.scenario for each in transcripts() if each.provider == codec.provider}
    offered = {SHOWN[feature] for feature in codec.features}
    assert offered <= shown
    both = offered - {"parameters", *(("json_schema",) if codec.provider == "groq" else ())}
    assert {f"{scenario}_stream" for scenario in both} <= shown


def test_a_server_of_ones_own_is_refused_nothing_but_what_the_dialect_has_no_words_for() -> None:
    document = Message(Role.USER, parts=(FilePart(Media(url="https://example.com/a.pdf")),))
    with pytest.raises(UnsupportedFeatureError, match=r"compatible has no files by URL \(model m\)"):
        body(CompatibleCodec(), "m", document)
    assert CompatibleCodec.features == frozenset(Feature) - {Feature.FILE_URL, Feature.CITED_FILES}


# Groq.


def test_groq_takes_a_schema_neither_in_a_stream_nor_with_tools() -> None:
    asked = CompletionRequest("openai/gpt-oss-20b", (HI,), response_format=ResponseFormat({"type": "object"}))
    with pytest.raises(UnsupportedFeatureError, match="groq has no responseFormat jsonSchema in a stream"):
        GroqCodec().encode(asked, stream=True)
    with pytest.raises(UnsupportedFeatureError, match="groq has no responseFormat jsonSchema together with tools"):
        body(GroqCodec(), asked.model, response_format=asked.response_format, tools=(Tool("f"),))
    loose = CompletionRequest("openai/gpt-oss-20b", (HI,), response_format=ResponseFormat(), tools=(Tool("f"),))
    assert GroqCodec().encode(loose, stream=True).body["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("model", "effort", "options", "fields"),
    [
        ("qwen/qwen3-32b", None, {}, {"reasoning_format": "parsed"}),
        ("qwen/qwen3-32b", "none", {}, {"reasoning_format": "parsed", "reasoning_effort": "none"}),
        ("qwen/qwen3-32b", None, {"reasoning_format": "raw"}, {"reasoning_format": "raw"}),
        ("qwen/qwen3-32b", "low", {"include_reasoning": False}, {"include_reasoning": False}),
        ("openai/gpt-oss-20b", None, {}, {}),
        ("openai/gpt-oss-20b", "high", {}, {"reasoning_effort": "high"}),
        ("thinker-9", "minimal", {}, {"reasoning_effort": "minimal"}),
    ],
)
def test_how_groqs_models_are_told_to_think(
    model: str, effort: str | None, options: dict[str, Any], fields: dict[str, Any]
) -> None:
    sent = body(GroqCodec(), model, reasoning_effort=effort and ReasoningEffort(effort), options=options)
    if "include_reasoning" in options:
        assert sent.pop("reasoning_effort") == "default"
    assert {name: value for name, value in sent.items() if name not in ("model", "messages")} == fields


@pytest.mark.parametrize(
    ("codec", "model"), [(GroqCodec(), "openai/gpt-oss-120b"), (MistralCodec(), "magistral-small-latest")]
)
def test_what_always_thinks_is_not_told_not_to(codec: ChatCompletionsCodec, model: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match="has no reasoningEffort none"):
        body(codec, model, reasoning_effort=ReasoningEffort.NONE)


# Mistral.


@pytest.mark.parametrize(
    ("model", "effort", "sent"),
    [
        ("mistral-small-latest", "none", "none"),
        ("mistral-medium-3-5", "minimal", "high"),
        ("mistral-large-4-0", "minimal", "low"),
        ("mistral-large-4-0", "medium", "medium"),
    ],
)
def test_how_mistrals_models_are_told_to_think(model: str, effort: str, sent: str) -> None:
    assert body(MistralCodec(), model, reasoning_effort=ReasoningEffort(effort))["reasoning_effort"] == sent


def test_mistral_thinks_twice_and_refers_behind_what_is_written() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]}

    answer = streamed(
        MistralCodec(),
        thought("one"),
        {"content": "né"},
        {"content": [{"type": "reference", "reference_ids": [3, "b"]}]},
        thought("two"),
        {"content": "e"},
    )
    assert answer.reasoning_blocks == (ReasoningBlock("one", "mistral:"), ReasoningBlock("two", "mistral:"))
    assert [(each.title, each.start, each.end) for each in answer.citations] == [("3", None, 2), ("b", None, 2)]
    assert answer.content == "née"


def test_a_thought_that_is_cut_off_is_no_block() -> None:
    answer = streamed(CompatibleCodec(), {"reasoning": "so"}, finish=None)
    assert (answer.reasoning, answer.reasoning_blocks) == ("so", ())


# OpenRouter.


def test_openrouters_routing_is_the_callers_where_they_say_so() -> None:
    answers = ResponseFormat()
    assert body(OpenRouterCodec(), response_format=answers)["provider"] == {"require_parameters": True}
    own = {"provider": {"only": ["azure"]}}
    assert body(OpenRouterCodec(), response_format=answers, options=own)["provider"] == own["provider"]
    assert "provider" not in body(OpenRouterCodec(), temperature=0.5)


def test_openrouters_details_alone_are_reasoning_too() -> None:
    summary = {"type": "reasoning.summary", "summary": "It is ", "index": 0}
    answer = streamed(
        OpenRouterCodec(),
        {"reasoning_details": [summary]},
        {"reasoning_details": [{**summary, "summary": "odd."}, {"type": "reasoning.new", "blob": [1], "index": 1}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "YQ=="}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "Yg=="}]},
    )
    (block,) = answer.reasoning_blocks
    assert block.text == answer.reasoning == "It is odd."
    back = body(OpenRouterCodec(), "m", HI, Message(Role.ASSISTANT, "Yes.", reasoning=(block,)), HI)["messages"][1]
    assert back["reasoning_details"] == [
        {"type": "reasoning.summary", "summary": "It is odd.", "index": 0},
        {"type": "reasoning.new", "blob": [1], "index": 1},
        {"type": "reasoning.encrypted", "data": "YQ=="},
        {"type": "reasoning.encrypted", "data": "Yg=="},
    ]


@pytest.mark.parametrize("rest", ["", "{", "1", '{"type":"reasoning.text"}'])
def test_a_block_that_is_not_as_it_came_is_refused(rest: str) -> None:
    block = ReasoningBlock("so", f"openrouter:{rest}")
    with pytest.raises(UnsendableRequestError, match="signature is not as it came"):
        body(OpenRouterCodec(), "m", Message(Role.ASSISTANT, "Yes.", reasoning=(block,)))


def test_details_nested_too_deep_are_refused() -> None:
    deep = orjson.loads('{"a":' * 400 + "1" + "}" * 400)
    answer = {"choices": [{"message": {"reasoning_details": [deep]}, "finish_reason": "stop"}]}
    with pytest.raises(ProviderBadResponseError, match="nested too deep"):
        OpenRouterCodec().decode(answer)


def test_a_turn_without_text_has_nothing_to_mark_for_the_cache() -> None:
    picture = Message(Role.USER, parts=(FilePart(Media(url="https://example.com/a.pdf")),), cache=True)
    messages = body(OpenRouterCodec(), "m", picture, Message(Role.TOOL, "", tool_call_id="a", cache=True))["messages"]
    assert "cache_control" not in str(messages)


def test_no_signature_writes_any_field_but_that_of_reasoning() -> None:
    block = ReasoningBlock("system", "compatible:role")
    assert body(CompatibleCodec(), "m", Message(Role.ASSISTANT, "x", reasoning=(block,)))["messages"] == [
        {"role": "assistant", "content": "x"}
    ]
