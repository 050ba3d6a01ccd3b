"""What the transcripts don't show of OpenAI's two APIs: which request goes where, and odd events."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from providers.errors import (
    ProviderBadResponseError,
    ProviderContentFilteredError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderUnavailableError,
    UnsendableRequestError,
    UnsupportedFeatureError,
)
from providers.features import Feature
from providers.openai import AzureOpenAICodec, OpenAICodec
from providers.sse import ServerSentEvent
from providers.types import (
    CompletionRequest,
    FilePart,
    Finished,
    FinishReason,
    Media,
    Message,
    ProviderCompletion,
    ReasoningBlock,
    ReasoningDelta,
    ReasoningEffort,
    Role,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from tests.conformance.transcripts import transcripts
from tests.providers.test_openai_features import SHOWN

CODEC = OpenAICodec()
HI = Message(Role.USER, "hi")
LINKED = Message(Role.USER, parts=(FilePart(Media(url="https://example.com/a.pdf")),))


def encoded(model: str, *messages: Message, **fields: Any) -> tuple[str, dict[str, Any]]:
    call = CODEC.encode(CompletionRequest(model, messages or (HI,), **fields), stream=False)
    return call.path, dict(call.body)


def fed(*payloads: dict[str, Any]) -> list[StreamEvent]:
    decoder = CODEC.decoder()
    events = (ServerSentEvent(orjson.dumps(payload).decode(), payload["type"]) for payload in payloads)
    return [each for event in events for each in decoder.feed(event)]


def event(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields}


def whole(*output: Any, **more: Any) -> dict[str, Any]:
    return {"object": "response", "status": "completed", "output": list(output), **more}


@pytest.mark.parametrize("codec", [OpenAICodec(), AzureOpenAICodec()], ids=lambda codec: codec.provider)
def test_what_is_offered_is_shown(codec: OpenAICodec) -> None:
    shown = {each.scenario for each in transcripts() if each.provider == codec.provider}
    offered = {SHOWN[feature] for feature in codec.features}
    assert offered <= shown
    assert {f"{scenario}_stream" for scenario in offered - {"parameters"}} <= shown
    assert codec.features == frozenset(Feature) - {Feature.CITED_FILES}


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("gpt-4.1", "/chat/completions"),
        ("gpt-4o-search-preview", "/chat/completions"),
        ("gpt-5-search-api", "/chat/completions"),
        ("ft:gpt-4o:acme", "/chat/completions"),
        ("gpt-5", "/responses"),
        ("gpt-5.5-pro", "/responses"),
        ("gpt-6-sol", "/responses"),
        ("o3", "/responses"),
        ("o4-mini-deep-research", "/responses"),
        ("codex-mini-latest", "/responses"),
    ],
)
def test_models_that_think_go_to_responses(model: str, path: str) -> None:
    assert encoded(model)[0] == path


@pytest.mark.parametrize("fields", [{"stop": ("x",)}, {"seed": 1}])
def test_what_only_chat_completions_have_words_for_goes_there(fields: dict[str, Any]) -> None:
    assert encoded("gpt-5", **fields)[0] == "/chat/completions"
    with pytest.raises(UnsupportedFeatureError, match="files by URL with stop or seed"):
        encoded("gpt-5", LINKED, **fields)


def test_a_file_by_its_address_goes_to_responses_whatever_the_model() -> None:
    assert encoded("gpt-4.1", LINKED)[0] == "/responses"


@pytest.mark.parametrize(
    ("model", "effort", "told"),
    [
        ("gpt-5-nano", "minimal", "minimal"),
        ("gpt-5-2025-08-07", "minimal", "minimal"),
        ("gpt-5.1", "minimal", "low"),
        ("o3", "minimal", "low"),
        ("gpt-5.1", "high", "high"),
    ],
)
def test_each_generation_thinks_in_its_own_words(model: str, effort: str, told: str) -> None:
    body = encoded(model, reasoning_effort=ReasoningEffort(effort))[1]
    assert body["reasoning"] == {"effort": told, "summary": "auto"}


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini-2025-08-07", "o3", "o4-mini"])
@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"reasoning_effort": ReasoningEffort.NONE}, "reasoningEffort none"),
        ({"temperature": 0.2}, "temperature"),
        ({"top_p": 0.2}, "topP"),
        ({"logprobs": 0}, "logprobs"),
    ],
)
def test_models_that_always_think_have_nothing_else_to_set(model: str, fields: dict[str, Any], feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        encoded(model, **fields)
    assert (caught.value.feature, caught.value.model, caught.value.sent) == (feature, model, False)
    assert encoded(model, temperature=1.0)[1]["temperature"] == 1


def test_later_ones_and_those_that_chat_are_left_to_the_vendor() -> None:
    for model in ("gpt-5.1", "gpt-5-chat-latest", "gpt-6-sol"):
        assert encoded(model, temperature=0.2)[1]["temperature"] == 0.2


def test_those_that_need_not_are_told_not_to() -> None:
    assert encoded("gpt-5.1", reasoning_effort=ReasoningEffort.NONE)[1]["reasoning"] == {"effort": "none"}


def test_options_go_over_what_they_name_and_beside_the_rest() -> None:
    options = {
        "reasoning": {"summary": None},
        "include": ["reasoning.encrypted_content", "web_search_call.action.sources"],
        "service_tier": "flex",
        "store": True,
    }
    body = encoded("gpt-5.1", reasoning_effort=ReasoningEffort.LOW, options=options)[1]
    assert body["reasoning"] == {"effort": "low", "summary": None}
    assert body["include"] == ["reasoning.encrypted_content", "web_search_call.action.sources"]
    assert (body["service_tier"], body["store"]) == ("flex", True)


@pytest.mark.parametrize("rest", ["", "x", "0:0:{", "0:0:[]", 'a:0:{"id":"x"}', "0:0"])
def test_a_signature_that_somebody_changed_is_refused(rest: str) -> None:
    answer = Message(Role.ASSISTANT, "x", reasoning=(ReasoningBlock("", f"openai:{rest}"),))
    with pytest.raises(UnsendableRequestError, match="not as it came"):
        encoded("gpt-5", answer)


def test_an_empty_answer_of_before_is_still_a_turn() -> None:
    assert encoded("gpt-5", HI, Message(Role.ASSISTANT, ""), HI)[1]["input"][1] == {"role": "assistant", "content": ""}


def test_arguments_that_come_whole_are_told_when_the_call_closes() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    assert fed(
        event("output_item.added", output_index=3, item=call),
        event("output_item.done", output_index=3, item={**call, "arguments": "{}"}),
    ) == [ToolCallDelta(0, "c", "f"), ToolCallDelta(0, arguments="{}")]


def test_raw_reasoning_is_reasoning_and_without_a_secret_no_block() -> None:
    item = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": None}
    assert fed(
        event("output_item.added", output_index=0, item=item),
        event("reasoning_text.delta", delta="Hm."),
        event("output_item.done", output_index=0, item=item),
    ) == [ReasoningDelta("Hm.")]
    plain = {**item, "content": [{"type": "reasoning_text", "text": "Hm."}]}
    assert CODEC.decode(whole(plain)) == ProviderCompletion(reasoning="Hm.", finish_reason=FinishReason.STOP)


def test_unknown_events_items_and_parts_are_passed_over() -> None:
    assert fed(event("created"), event("from_the_future", x=1), event("output_text.delta", delta="")) == []
    odd = [{"type": "image_generation_call"}, {"type": "message", "content": [{"type": "output_audio"}]}]
    assert CODEC.decode(whole(*odd)) == ProviderCompletion(finish_reason=FinishReason.STOP)


def test_arguments_of_a_call_that_is_not_ours_are_passed_over() -> None:
    assert fed(event("function_call_arguments.delta", output_index=9, delta="{}")) == []


@pytest.mark.parametrize(
    ("details", "finish"),
    [({"reason": "max_messages"}, FinishReason.OTHER), (None, FinishReason.OTHER), ({}, FinishReason.OTHER)],
)
def test_an_end_that_nobody_knows_is_another(details: Any, finish: FinishReason) -> None:
    told = event("incomplete", response={"status": "incomplete", "incomplete_details": details})
    assert fed(told) == [Finished(finish)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_error", ProviderUnavailableError),
        ("invalid_prompt", ProviderInvalidRequestError),
        ("bio_policy", ProviderContentFilteredError),
        ("new", ProviderUnavailableError),
        (None, ProviderUnavailableError),
    ],
)
def test_a_failed_response_is_its_error(code: str | None, kind: type[ProviderError]) -> None:
    failed = {"status": "failed", "error": {"code": code, "message": "why"}}
    for ask in (lambda: fed(event("failed", response=failed)), lambda: CODEC.decode({"object": "response", **failed})):
        with pytest.raises(kind, match="why") as caught:
            ask()
        assert caught.value.provider == "openai"


@pytest.mark.parametrize(
    "payload",
    [
        event("output_item.added", item={"type": "function_call", "name": "f", "call_id": "c"}),
        event("output_item.added", output_index=0, item={"type": "function_call", "name": "f"}),
        event("output_item.added", output_index=0, item="x"),
        event("output_text.delta", delta=1),
        event("output_text.delta", delta="x", logprobs=[{"token": "x"}]),
        event("output_text.annotation.added", annotation=[]),
        event("completed", response=[]),
        event("completed", response={"usage": {"input_tokens": -1}}),
    ],
)
def test_malformed_events_are_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponseError):
        fed(payload)


def test_a_stream_of_chat_completions_is_read_as_such() -> None:
    decoder = CODEC.decoder()
    chunk = {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    assert list(decoder.feed(ServerSentEvent(orjson.dumps(chunk).decode()))) == [TextDelta("Hi")]
    assert not decoder.done
    decoder.feed(ServerSentEvent("[DONE]"))
    assert decoder.done
