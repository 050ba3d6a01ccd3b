"""What the transcripts don't show of what Claude models offer: what single ones refuse, and odd blocks of thinking."""

from __future__ import annotations

from typing import Any

import pytest

from providers.anthropic import AnthropicCodec
from providers.anthropic_models import ClaudeModel, model_of
from providers.errors import ProviderBadResponseError, UnsendableRequestError, UnsupportedFeatureError
from providers.types import (
    CompletionRequest,
    FilePart,
    ImagePart,
    Media,
    Message,
    ReasoningBlock,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from tests.conformance.transcripts import transcripts
from tests.providers.test_openai_features import SHOWN

CODEC = AnthropicCodec()
HI = Message(Role.USER, "hi")
FORCED = {"tools": (Tool("f"),), "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)}
SCHEMA = ResponseFormat({"type": "object"})


def body(model: str, *messages: Message, **fields: Any) -> dict[str, Any]:
    return dict(CODEC.encode(CompletionRequest(model, messages or (HI,), **fields), stream=False).body)


def test_what_is_offered_is_shown() -> None:
    shown = {each.scenario for each in transcripts() if each.provider == CODEC.provider}
    offered = {SHOWN[feature] for feature in CODEC.features}
    assert offered <= shown
    assert {f"{scenario}_stream" for scenario in offered} <= shown


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-opus-5-5", ClaudeModel("opus", (5, 5))),
        ("claude-opus-4-5-20251101", ClaudeModel("opus", (4, 5))),
        ("claude-sonnet-4-20250514", ClaudeModel("sonnet", (4, 0))),
        ("claude-3-7-sonnet-20250219", ClaudeModel("", (3, 7))),
        ("claude-mythos-preview", ClaudeModel("mythos", None)),
        ("somebody's", ClaudeModel("", None)),
    ],
)
def test_names_tell_family_and_version(name: str, model: ClaudeModel) -> None:
    assert model_of(name) == model


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("claude-3-7-sonnet-20250219", "minimal", {"type": "enabled", "budget_tokens": 1024}),
        ("claude-haiku-4-5", "low", {"type": "enabled", "budget_tokens": 4096}),
        ("claude-opus-4-5", "high", {"type": "enabled", "budget_tokens": 16_384}),
        ("claude-opus-4-6", "high", {"type": "adaptive", "display": "summarized"}),
        ("claude-fable-5", "low", {"type": "adaptive", "display": "summarized"}),
        ("claude-from-the-future", "low", {"type": "adaptive", "display": "summarized"}),
        ("claude-opus-5", "none", {"type": "disabled"}),
        ("claude-haiku-5-5", "none", {"type": "disabled"}),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}),
        ("claude-3-5-haiku-latest", "none", None),
    ],
)
def test_each_generation_thinks_in_its_own_words(model: str, effort: str, thinking: dict[str, Any] | None) -> None:
    encoded = body(model, reasoning_effort=ReasoningEffort(effort))
    assert encoded.get("thinking") == thinking
    adaptive = (thinking or {}).get("type") == "adaptive"
    assert encoded.get("output_config") == ({"effort": effort} if adaptive else None)
    assert encoded["max_tokens"] - (thinking or {}).get("budget_tokens", 0) >= 4096


def test_the_least_effort_is_the_vendors_lowest() -> None:
    assert body("claude-opus-5", reasoning_effort=ReasoningEffort.MINIMAL)["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(("most", "budget"), [(1025, 1024), (3000, 1500), (100_000, 8192)])
def test_a_budget_leaves_room_for_the_answer(most: int, budget: int) -> None:
    encoded = body("claude-haiku-4-5", reasoning_effort=ReasoningEffort.MEDIUM, max_tokens=most)
    assert (encoded["max_tokens"], encoded["thinking"]["budget_tokens"]) == (most, budget)


def test_too_few_tokens_to_think_in_are_refused() -> None:
    with pytest.raises(UnsendableRequestError, match=r"maxTokens is above 1024.*claude-haiku-4-5"):
        body("claude-haiku-4-5", reasoning_effort=ReasoningEffort.LOW, max_tokens=1024)


@pytest.mark.parametrize(
    ("model", "fields", "feature"),
    [
        ("claude-3-5-haiku-latest", {"reasoning_effort": ReasoningEffort.LOW}, "reasoningEffort"),
        ("claude-opus-4-1", {"response_format": SCHEMA}, "responseFormat jsonSchema"),
        ("claude-opus-5", {"response_format": ResponseFormat()}, "responseFormat json"),
        ("claude-opus-5-5", {"reasoning_effort": ReasoningEffort.NONE}, "reasoningEffort none"),
        ("claude-mythos-preview", {"reasoning_effort": ReasoningEffort.NONE}, "reasoningEffort none"),
        ("claude-sonnet-5", {"temperature": 0.5}, "temperature"),
        ("claude-opus-4-7", {"top_p": 0.5}, "topP"),
        ("claude-sonnet-5-5", FORCED, "forced toolChoice"),
        ("claude-fable-5-1", FORCED, "forced toolChoice"),
        (
            "claude-haiku-4-5",
            {"temperature": 0.0, "reasoning_effort": ReasoningEffort.LOW},
            "temperature with reasoningEffort",
        ),
        (
            "claude-haiku-4-5",
            {**FORCED, "reasoning_effort": ReasoningEffort.LOW},
            "forced toolChoice with reasoningEffort",
        ),
        ("claude-opus-5", {"seed": 1}, "seed"),
        ("claude-opus-5", {"logprobs": 1}, "logprobs"),
    ],
)
def test_what_a_model_refuses_is_told_before_it_is_asked(model: str, fields: dict[str, Any], feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        body(model, **fields)
    assert (caught.value.feature, caught.value.model, caught.value.sent) == (feature, model, False)


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("claude-sonnet-5", {"temperature": 1.0, "top_p": 1.0}),
        ("claude-haiku-4-5", {"temperature": 0.5, "reasoning_effort": ReasoningEffort.NONE}),
        ("claude-opus-5", FORCED),
        ("claude-fable-5", FORCED),
        ("claude-mythos-preview", {"temperature": 0.5, **FORCED}),
    ],
)
def test_what_a_model_takes_is_sent(model: str, fields: dict[str, Any]) -> None:
    assert body(model, **fields)["model"] == model


def test_effort_schema_and_what_options_say_share_one_object() -> None:
    encoded = body(
        "claude-opus-5",
        reasoning_effort=ReasoningEffort.LOW,
        response_format=SCHEMA,
        options={"output_config": {"effort": "max"}, "speed": "fast"},
    )
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    assert encoded["output_config"] == {"effort": "max", "format": schema}
    assert encoded["speed"] == "fast"


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (
            ImagePart(Media(data="aGk=", media_type="image/tiff")),
            r"anthropic has no images of image/tiff \(model claude-opus-5\)",
        ),
        (FilePart(Media(data="aGk=", media_type="text/csv")), "no files of text/csv"),
        (FilePart(Media(url="https://a.example/x", media_type="text/plain")), "no files of text/plain by URL"),
        (FilePart(Media(data="/w==", media_type="text/plain")), "a file of text/plain is UTF-8"),
    ],
)
def test_media_that_the_api_has_no_type_for_are_refused(part: ImagePart | FilePart, told: str) -> None:
    with pytest.raises(UnsendableRequestError, match=told):
        body("claude-opus-5", Message(Role.USER, parts=(part,)))


def thought(signature: str, text: str = "Hm.") -> Message:
    return Message(Role.ASSISTANT, "Well.", reasoning=(ReasoningBlock(text, signature),))


@pytest.mark.parametrize(
    ("tag", "model", "kept"),
    [
        ("opus.5.5", "claude-opus-5-5", True),
        ("opus.5.5", "claude-sonnet-5-5", False),
        ("opus.5.5", "claude-opus-5", False),
        ("sonnet.4.5", "claude-opus-5-5", False),
        ("sonnet.4.5", "claude-haiku-4-5-20251001", True),
        ("mythos", "claude-mythos-preview", True),
    ],
)
def test_models_that_take_back_their_own_thinking_alone_get_no_other(tag: str, model: str, kept: bool) -> None:
    (turn,) = body(model, thought(f"anthropic:{tag}:0:0:thinking:abc"))["messages"]
    assert [block["type"] for block in turn["content"]] == (["thinking"] if kept else []) + ["text"]


@pytest.mark.parametrize("rest", ["", "abc", "opus.5:0:0:thinking", "opus.5:x:0:thinking:abc", "opus.5:0:0:text:abc"])
def test_a_signature_that_somebody_changed_is_refused(rest: str) -> None:
    with pytest.raises(UnsendableRequestError, match="not as it came"):
        body("claude-opus-5", thought(f"anthropic:{rest}"))


def test_thinking_whose_place_is_past_the_end_comes_last_before_what_is_left() -> None:
    (turn,) = body("claude-opus-5", thought("anthropic:opus.5.0:99:7:thinking:a:b"))["messages"]
    assert turn["content"] == [
        {"type": "text", "text": "Well."},
        {"type": "thinking", "thinking": "Hm.", "signature": "a:b"},
    ]


def test_a_citation_that_is_none_is_malformed() -> None:
    block = {"type": "text", "text": "x", "citations": ["y"]}
    with pytest.raises(ProviderBadResponseError, match="a citation is not an object"):
        CODEC.decode({"content": [block], "stop_reason": "end_turn"})


@pytest.mark.parametrize("extra", [{"speed": "fast"}, {"server_tool_use": {"web_search_requests": 1}}])
def test_what_the_table_has_no_price_for_is_said(extra: dict[str, Any]) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    for figures, off in ((usage, False), ({**usage, **extra}, True)):
        told = CODEC.decode({"content": [], "usage": figures}).usage
        assert told is not None
        assert told.off_table is off
