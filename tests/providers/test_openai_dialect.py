"""What the transcripts don't show of the chat-completions codecs: odd histories, odd servers, malformed answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.compatible import CompatibleCodec
from providers.errors import ProviderBadResponseError
from providers.fold import fold
from providers.groq import GroqCodec
from providers.mistral import MistralCodec
from providers.openai import OpenAICodec
from providers.openai_dialect import ChatCompletionsCodec
from providers.openrouter import OpenRouterCodec
from providers.sse import ServerSentEvent, SSEDecoder
from providers.types import (
    CompletionRequest,
    Credentials,
    Finished,
    FinishReason,
    Message,
    ProviderCompletion,
    Role,
    StreamEvent,
    TextDelta,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)

OPENAI = OpenAICodec()
CODECS: list[ChatCompletionsCodec] = [OPENAI, GroqCodec(), MistralCodec(), OpenRouterCodec(), CompatibleCodec("local")]
INCLUDE_USAGE = {"stream_options": {"include_usage": True}}
every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.provider)


def request(*messages: Message, **fields: Any) -> CompletionRequest:
    return CompletionRequest(model="m", messages=messages or (Message(Role.USER, "hi"),), **fields)


def body(codec: ChatCompletionsCodec, asked: CompletionRequest, *, stream: bool = False) -> dict[str, Any]:
    return dict(codec.encode(asked, stream=stream).body)


def answer(message: Any, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}


def chunk(delta: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def feed(codec: ChatCompletionsCodec, *chunks: Any) -> list[StreamEvent]:
    decoder = codec.decoder()
    return [each for one in chunks for each in decoder.feed(ServerSentEvent(orjson.dumps(one).decode()))]


def calls(*fragments: Any) -> dict[str, Any]:
    return chunk({"tool_calls": list(fragments)})


def fragment(arguments: Any = "", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "arguments": arguments}, **more}


# Encoding.


@every_codec
def test_options_win_over_fields_and_go_out_as_they_are(codec: ChatCompletionsCodec) -> None:
    options = {"temperature": 1, "logit_bias": {"50256": -100}, "x": None}
    assert body(codec, request(temperature=0.5, options=options)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        **options,
    }


@every_codec
def test_zero_is_a_value(codec: ChatCompletionsCodec) -> None:
    sent = body(codec, request(temperature=0.0, top_p=0.0, seed=0))
    assert (sent["temperature"], sent["top_p"], sent[codec.seed_field]) == (0.0, 0.0, 0)


@every_codec
def test_a_forced_tool_goes_by_its_name(codec: ChatCompletionsCodec) -> None:
    choice = ToolChoice(ToolChoiceMode.REQUIRED, "f")
    assert body(codec, request(tools=(Tool("f"),), tool_choice=choice))["tool_choice"] == {
        "type": "function",
        "function": {"name": "f"},
    }


def test_modes_keep_their_names_but_for_mistral() -> None:
    sent = {
        codec.provider: [body(codec, request(tool_choice=ToolChoice(mode)))["tool_choice"] for mode in ToolChoiceMode]
        for codec in CODECS
    }
    assert sent.pop("mistral") == ["auto", "none", "any"]
    assert {tuple(modes) for modes in sent.values()} == {("auto", "none", "required")}


def test_only_mistral_is_not_told_the_end_user() -> None:
    sent = {codec.provider: body(codec, request(end_user="u1")) for codec in CODECS}
    assert sent["openai"]["safety_identifier"] == "u1"
    assert "u1" not in sent["mistral"].values()
    assert all(sent[name]["user"] == "u1" for name in ("groq", "openrouter", "local"))


def test_usage_is_asked_for_in_streams() -> None:
    for codec in CODECS:
        fields = {"stream": True} if codec.provider == "mistral" else {"stream": True, **INCLUDE_USAGE}
        plain = body(codec, request())
        assert body(codec, request(), stream=True) == plain | fields


@every_codec
def test_empty_messages_keep_their_place(codec: ChatCompletionsCodec) -> None:
    called = Message(Role.ASSISTANT, tool_calls=(ToolCall("abcdefghi", "f", "{}"),))
    result = Message(Role.TOOL, None, tool_call_id="abcdefghi")
    sent = body(codec, request(Message(Role.USER, None), Message(Role.ASSISTANT, None), called, result))["messages"]
    assert [each["content"] for each in sent] == ["", "", None, ""]
    assert sent[3]["tool_call_id"] == sent[2]["tool_calls"][0]["id"] == "abcdefghi"


@given(st.lists(st.text(min_size=1), unique=True, max_size=5))
def test_mistral_gets_ids_of_nine_letters_and_digits(ids: list[str]) -> None:
    codec = MistralCodec()
    history = [Message(Role.ASSISTANT, tool_calls=tuple(ToolCall(each, "f", "{}") for each in ids))]
    history += [Message(Role.TOOL, "r", tool_call_id=each) for each in ids]
    called, *results = body(codec, request(*history))["messages"]
    sent = [each["id"] for each in called.get("tool_calls", ())]
    assert sent == [each["tool_call_id"] for each in results]
    assert len(set(sent)) == len(ids)
    assert all(len(each) == 9 and each.isascii() and each.isalnum() for each in sent)


@every_codec
def test_the_key_travels_as_a_bearer_token_if_there_is_one(codec: ChatCompletionsCodec) -> None:
    assert codec.headers(Credentials("k")) == {"authorization": "Bearer k"}
    assert codec.headers(Credentials("")) == {}


# Decoding.


@every_codec
def test_unknown_fields_are_no_trouble_and_usage_may_be_missing(codec: ChatCompletionsCodec) -> None:
    got = codec.decode(answer({"content": "a", "audio": {"id": 1}, "new": [1]}, new={"x": 1}, usage=None))
    assert got == ProviderCompletion(content="a", finish_reason=FinishReason.STOP, model="m-1")
    assert fold(feed(codec, chunk({"content": "a", "new": 1}), chunk({}, "stop"), {"new": 1})) == got


@every_codec
def test_further_choices_have_no_place(codec: ChatCompletionsCodec) -> None:
    second = {"index": 1, "message": {"content": "b"}, "delta": {"content": "b"}, "finish_reason": "length"}
    plain = answer({"content": "a"})
    plain["choices"].append(second)
    assert codec.decode(plain).content == "a"
    streamed = fold(feed(codec, {"choices": [second]}, chunk({"content": "a"}, "stop")))
    assert (streamed.content, streamed.finish_reason) == ("a", FinishReason.STOP)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("model_length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("something_new", FinishReason.OTHER),
    ],
)
def test_finish_reasons(word: str, reason: FinishReason) -> None:
    assert OPENAI.decode(answer({"content": "a"}, word)).finish_reason is reason
    assert fold(feed(OPENAI, chunk({}, word))).finish_reason is reason


def test_a_token_is_one_event() -> None:
    assert feed(OPENAI, chunk({"content": "a"}, usage=None)) == [TextDelta("a")]
    assert feed(OPENAI, chunk({"role": "assistant", "content": ""})) == []


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_reasoning_has_two_names(field: str) -> None:
    codec = CompatibleCodec("local")
    assert codec.decode(answer({"content": "a", field: "because"})).reasoning == "because"
    assert fold(feed(codec, chunk({field: "be"}), chunk({field: "cause"}))).reasoning == "because"


def test_a_refusal_is_what_the_model_said() -> None:
    assert OPENAI.decode(answer({"content": None, "refusal": "I can't."})).content == "I can't."


def test_calls_told_apart_by_index_may_be_interleaved() -> None:
    first, second = fragment(index=0, id="a"), fragment(index=1, id="b")
    rest = [{"index": 1, "function": {"arguments": '{"b":2}'}}, {"index": 0, "function": {"arguments": '{"a":1}'}}]
    got = fold(feed(OPENAI, calls(first, second), *map(calls, rest), chunk({}, "stop")))
    assert got.tool_calls == (ToolCall("a", "f", '{"a":1}'), ToolCall("b", "f", '{"b":2}'))
    assert got.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("place", [{}, {"index": 0}, {"index": None}])
def test_whole_calls_under_one_index_are_calls_of_their_own(place: dict[str, Any]) -> None:
    got = fold(feed(MistralCodec(), calls(fragment("{}", id="a", **place)), calls(fragment("[]", id="b", **place))))
    assert [each.id for each in got.tool_calls] == ["a", "b"]


def test_an_id_may_come_with_every_fragment() -> None:
    got = fold(feed(OPENAI, *(calls(fragment(piece, index=0, id="a")) for piece in ('{"a"', ":1}"))))
    assert got.tool_calls == (ToolCall("a", "f", '{"a":1}'),)


def test_calls_without_an_id_get_one_by_their_position() -> None:
    expected = (ToolCall("call_0", "f", '{"x":1}'), ToolCall("call_1", "f", "{}"))
    fragments = [fragment({"x": 1}), fragment("{}", id="")]
    assert CODECS[-1].decode(answer({"content": "", "tool_calls": fragments})).tool_calls == expected
    assert fold(feed(CODECS[-1], calls(*fragments))).tool_calls == expected


def test_mistral_content_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "reference", "reference_ids": [1]}]},
        {"type": "text", "text": "a"},
        {"type": "reference", "reference_ids": [1]},
        {"type": "text", "text": "b"},
    ]
    got = MistralCodec().decode(answer({"content": parts}))
    assert (got.content, got.reasoning) == ("ab", "hm")


def test_the_cost_is_exact() -> None:
    counts = orjson.loads('{"prompt_tokens":10,"completion_tokens":2,"cost":0.00001234567}')
    got = OpenRouterCodec().decode(answer({"content": "a"}, usage=counts))
    assert got.usage == Usage(10, 2, cost=Decimal("0.00001234567"))
    assert OpenRouterCodec().decode(answer({"content": "a"}, usage={**counts, "cost": 0})).usage == Usage(
        10, 2, cost=Decimal(0)
    )


def test_groq_usage_may_come_in_its_own_object_alone() -> None:
    extra = {"id": "req_1", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
    assert feed(GroqCodec(), chunk({}, "stop", x_groq=extra)) == [Finished(FinishReason.STOP, Usage(3, 4), "m-1")]


def test_mistral_counts_cached_tokens_beside_the_details() -> None:
    counts = {"prompt_tokens": 9, "completion_tokens": 1, "num_cached_tokens": 8}
    got = MistralCodec().decode(answer({"content": "a"}, usage=counts))
    assert got.usage == Usage(9, 1, cached_input_tokens=8)


@every_codec
def test_done_only_when_the_vendor_says_so(codec: ChatCompletionsCodec) -> None:
    decoder = codec.decoder()
    decoder.feed(ServerSentEvent(orjson.dumps(chunk({}, "stop")).decode()))
    assert not decoder.done
    assert list(decoder.feed(ServerSentEvent("[DONE]"))) == []
    assert decoder.done


MALFORMED: list[Any] = [
    None,
    [],
    "x",
    {},
    {"choices": []},
    {"choices": {}},
    {"choices": ["x"]},
    answer("x"),
    answer({"content": 1}),
    answer({"content": ["x"]}),
    answer({"content": "a", "reasoning": 1}),
    answer({"tool_calls": {"a": 1}}),
    answer({"tool_calls": ["x"]}),
    answer({"tool_calls": [{"function": "x"}]}),
    answer({"tool_calls": [fragment(["x"], id="a")]}),
    answer({"tool_calls": [fragment("{}", id=1)]}),
    answer({"tool_calls": [fragment("{}", id="a", index="0")]}),
    answer({"content": "a"}, 1),
    answer({"content": "a"}, model=1),
    answer({"content": "a"}, usage="x"),
    answer({"content": "a"}, usage={"prompt_tokens": -1}),
    answer({"content": "a"}, usage={"prompt_tokens": 1.5}),
    answer({"content": "a"}, usage={"prompt_tokens": True}),
    answer({"content": "a"}, usage={"prompt_tokens": 1, "prompt_tokens_details": [1]}),
]


@every_codec
@pytest.mark.parametrize("payload", MALFORMED, ids=lambda payload: orjson.dumps(payload).decode()[:80])
def test_malformed_answers_are_refused(codec: ChatCompletionsCodec, payload: Any) -> None:
    with pytest.raises(ProviderBadResponseError) as raised:
        codec.decode(payload)
    assert raised.value.provider == codec.provider


@every_codec
@pytest.mark.parametrize("data", ["", "{", "[DONE", "null", "[]", "1", '{"choices":1}'])
def test_malformed_chunks_are_refused(codec: ChatCompletionsCodec, data: str) -> None:
    with pytest.raises(ProviderBadResponseError):
        codec.decoder().feed(ServerSentEvent(data))


def test_arguments_nested_too_deep_are_refused() -> None:
    deep = orjson.loads('{"a":' * 400 + "1" + "}" * 400)
    with pytest.raises(ProviderBadResponseError):
        OPENAI.decode(answer({"tool_calls": [fragment(deep, id="a")]}))


# Chunk boundaries.


def wire(chunks: Iterable[Any], eol: str, comment: str) -> bytes:
    lines = (f"{comment}data: {orjson.dumps(each).decode()}{eol}{eol}" for each in chunks)
    return ("".join(lines) + f"data: [DONE]{eol}{eol}").encode()


@given(st.data())
def test_chunk_boundaries_change_nothing(data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(CODECS))
    texts = data.draw(st.lists(st.text(), max_size=4))
    thoughts = data.draw(st.lists(st.text(), max_size=2))
    arguments = data.draw(st.lists(st.text(), max_size=3))
    chunks = [chunk({"reasoning": each}) for each in thoughts] + [chunk({"content": each}) for each in texts]
    if arguments:
        chunks.append(calls({"index": 0, "id": "a", "function": {"name": "f"}}))
        chunks += [calls({"index": 0, "function": {"arguments": each}}) for each in arguments]
    chunks += [chunk({}, "stop"), {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}]
    eol = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    stream = wire(chunks, eol, data.draw(st.sampled_from(["", f": waiting{eol}", f": waiting{eol}{eol}"])))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    sse, decoder = SSEDecoder(), codec.decoder()
    events: list[StreamEvent] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for event in sse.feed(stream[start:end]):
            events += decoder.feed(event)
    for event in sse.feed(b":\n"):  # a CR at the very end waits for what follows it
        events += decoder.feed(event)
    assert decoder.done
    whole = fold(events)
    assert "".join(block.text for block in whole.reasoning_blocks) in ("", "".join(thoughts))
    assert replace(whole, reasoning_blocks=()) == ProviderCompletion(
        content="".join(texts) or None,
        reasoning="".join(thoughts) or None,
        tool_calls=(ToolCall("a", "f", "".join(arguments)),) if arguments else (),
        finish_reason=FinishReason.TOOL_CALLS if arguments else FinishReason.STOP,
        usage=Usage(1, 2),
        model="m-1",
    )
