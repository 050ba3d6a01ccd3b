"""What the transcripts don't show of the Anthropic codec: odd histories, malformed answers, cut streams, the errors."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.anthropic import AnthropicCodec
from providers.anthropic_models import DEFAULT_MAX_TOKENS
from providers.errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsendableRequestError,
    UnsupportedFeatureError,
)
from providers.fold import Fold, fold
from providers.sse import ServerSentEvent, SSEDecoder
from providers.types import (
    CompletionRequest,
    Finished,
    FinishReason,
    Message,
    ProviderCompletion,
    ReasoningDelta,
    Role,
    StreamEvent,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)

CODEC = AnthropicCodec()
INPUT = {"input_tokens": 10, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 30, "output_tokens": 1}


def body(*messages: Message, stream: bool = False, **fields: Any) -> dict[str, Any]:
    request = CompletionRequest("claude-haiku-4-5", messages or (Message(Role.USER, "hi"),), **fields)
    return dict(CODEC.encode(request, stream=stream).body)


def turns(*messages: Message) -> list[dict[str, Any]]:
    return body(*messages)["messages"]


def calling(*calls: ToolCall, content: str | None = None) -> Message:
    return Message(Role.ASSISTANT, content, tool_calls=calls)


def result(call_id: str, content: str | None) -> Message:
    return Message(Role.TOOL, content, tool_call_id=call_id)


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def tool_use(index: int = 0, **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{index}", "name": "f", "input": {}, **more}


def answer(*blocks: Any, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 2}
    return {"type": "message", "content": list(blocks), "stop_reason": "end_turn", "usage": usage, **more}


def message_start(usage: Any = INPUT) -> dict[str, Any]:
    return {"type": "message_start", "message": {"model": "claude-x", "content": [], "usage": usage}}


def block_start(index: int, block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def block_stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def message_delta(usage: Any, reason: str | None = "end_turn") -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def fed(*payloads: Any) -> list[StreamEvent]:
    decoder = CODEC.decoder()
    return [event for payload in payloads for event in decoder.feed(ServerSentEvent(orjson.dumps(payload).decode()))]


class TestEncode:
    def test_bare_request_has_nothing_but_the_required(self) -> None:
        assert body() == {
            "model": "claude-haiku-4-5",
            "max_tokens": DEFAULT_MAX_TOKENS,
            "messages": [{"role": "user", "content": [text("hi")]}],
            "stream": False,
        }

    def test_system_messages_are_lifted_from_anywhere_and_empty_ones_are_not_sent(self) -> None:
        encoded = body(
            Message(Role.SYSTEM, "one"),
            Message(Role.USER, "a"),
            Message(Role.SYSTEM, "two"),
            Message(Role.SYSTEM, ""),
            Message(Role.USER, "b"),
        )
        assert encoded["system"] == [text("one"), text("two")]
        assert encoded["messages"] == [{"role": "user", "content": [text("a"), text("b")]}]

    def test_tool_results_and_the_user_turn_after_them_are_one_turn(self) -> None:
        history = turns(
            Message(Role.USER, "q"),
            calling(ToolCall("c1", "f", '{"x": [1, null]}'), ToolCall("c2", "g", "{}")),
            result("c1", "one"),
            result("c2", None),
            Message(Role.USER, "next"),
            Message(Role.ASSISTANT, "done"),
        )
        assert [turn["role"] for turn in history] == ["user", "assistant", "user", "assistant"]
        assert history[1]["content"] == [
            {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": [1, None]}},
            {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
        ]
        assert history[2]["content"] == [
            {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
            {"type": "tool_result", "tool_use_id": "c2"},
            text("next"),
        ]

    @pytest.mark.parametrize("arguments", ["", "{", "[]", "null", '"x"', "[" * 2000])
    def test_arguments_that_are_no_object_are_refused_unsent(self, arguments: str) -> None:
        with pytest.raises(UnsendableRequestError, match="'c1'") as caught:
            turns(calling(ToolCall("c1", "f", arguments)))
        assert caught.value.sent is False

    def test_seed_is_refused_unsent(self) -> None:
        with pytest.raises(UnsupportedFeatureError) as caught:
            body(seed=0)
        assert (caught.value.feature, caught.value.sent) == ("seed", False)

    @pytest.mark.parametrize(("mode", "kind"), [("auto", "auto"), ("none", "none"), ("required", "any")])
    def test_tool_choice(self, mode: str, kind: str) -> None:
        assert body(tools=(Tool("f"),), tool_choice=ToolChoice(ToolChoiceMode(mode)))["tool_choice"] == {"type": kind}

    def test_zero_is_a_value(self) -> None:
        zeros = {"temperature": 0.0, "top_p": 0.0, "max_tokens": 0}
        assert body(**zeros).items() >= zeros.items()

    @pytest.mark.parametrize("stream", [True, False])
    def test_options_win_over_everything_but_the_way_the_answer_travels(self, stream: bool) -> None:
        encoded = body(
            stream=stream, temperature=0.1, options={"temperature": 1, "max_tokens": 9, "stream": not stream}
        )
        assert (encoded["temperature"], encoded["max_tokens"], encoded["stream"]) == (1, 9, stream)


class TestDecode:
    def test_unknown_blocks_are_passed_over(self) -> None:
        blocks = (
            text("It "),
            {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
            {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
            {"type": "from_the_future"},
            text("rains."),
        )
        assert CODEC.decode(answer(*blocks)).content == "It rains."

    @pytest.mark.parametrize(
        ("reason", "finish"),
        [
            ("model_context_window_exceeded", FinishReason.LENGTH),
            ("pause_turn", FinishReason.OTHER),
            ("from_the_future", FinishReason.OTHER),
            (None, None),
        ],
    )
    def test_stop_reasons(self, reason: str | None, finish: FinishReason | None) -> None:
        assert CODEC.decode(answer(stop_reason=reason)).finish_reason is finish
        usage = {"output_tokens": 2}
        assert fold(fed(message_start(), message_delta(usage, reason))).finish_reason is finish

    def test_empty_answer(self) -> None:
        assert CODEC.decode({"content": [text("")]}) == ProviderCompletion()

    def test_null_figures_count_as_none_of_their_kind(self) -> None:
        usage = {**INPUT, "cache_read_input_tokens": None, "output_tokens_details": None}
        assert CODEC.decode(answer(usage=usage)).usage == Usage(40, 1, 0, 30)

    @pytest.mark.parametrize(
        "payload",
        [
            None,
            {"content": None},
            answer("text"),
            answer({"type": "text", "text": 1}),
            answer({"type": "thinking", "thinking": None}),
            answer(tool_use(id=None)),
            answer(tool_use(input="{}")),
            answer(stop_reason=1),
            answer(usage=[1]),
            answer(usage={"input_tokens": 1}),
            answer(usage={**INPUT, "output_tokens_details": {"thinking_tokens": "9"}}),
        ],
    )
    def test_malformed_answers(self, payload: Any) -> None:
        with pytest.raises(ProviderBadResponseError):
            CODEC.decode(payload)

    @pytest.mark.parametrize("count", [-1, 1.5, True, "9", []])
    def test_malformed_counts(self, count: Any) -> None:
        for key in INPUT:
            with pytest.raises(ProviderBadResponseError, match=key):
                CODEC.decode(answer(usage={**INPUT, key: count}))

    def test_input_nested_too_deep_to_be_written_again(self) -> None:
        nested: dict[str, Any] = {}
        for _ in range(300):
            nested = {"a": nested}
        with pytest.raises(ProviderBadResponseError, match="nested"):
            CODEC.decode(answer(tool_use(input=nested)))

    def test_an_error_in_a_200(self) -> None:
        with pytest.raises(ProviderUnavailableError, match="down"):
            CODEC.decode({"type": "error", "error": {"type": "api_error", "message": "down"}})


class TestStream:
    def test_tool_calls_are_counted_among_themselves(self) -> None:
        events = fed(
            block_start(0, text("")),
            block_stop(0),
            block_start(1, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
            delta(1, "input_json_delta", partial_json='{"query":'),
            block_stop(1),
            block_start(2, tool_use(2)),
            delta(2, "input_json_delta", partial_json='{"a"'),
            delta(2, "input_json_delta", partial_json=":1}"),
            block_stop(2),
            block_start(3, tool_use(3)),
            block_stop(3),
        )
        assert events == [
            ToolCallDelta(0, "toolu_2", "f"),
            ToolCallDelta(0, arguments='{"a"'),
            ToolCallDelta(0, arguments=":1}"),
            ToolCallDelta(1, "toolu_3", "f"),
            ToolCallDelta(1, arguments="{}"),
        ]

    def test_blocks_that_start_with_content(self) -> None:
        events = fed(
            block_start(0, {"type": "thinking", "thinking": "Hm"}),
            block_start(1, text("Hel")),
            delta(1, "text_delta", text="lo"),
            block_start(2, tool_use(input={"x": 1})),
            block_stop(2),
        )
        assert fold(events) == ProviderCompletion("Hello", "Hm", (ToolCall("toolu_0", "f", '{"x":1}'),))

    def test_unknown_events_and_deltas_are_passed_over(self) -> None:
        unknown = [{"type": "ping"}, {"type": "from_the_future"}, {}, delta(0, "compaction_delta", content="x")]
        silent = [delta(0, "signature_delta", signature=""), delta(0, "text_delta", text=""), block_stop(5)]
        assert fed(*unknown, *silent) == []

    def test_figures_of_the_end_go_over_those_of_the_start(self) -> None:
        details = {"thinking_tokens": 5}
        usage = {"input_tokens": 12, "cache_read_input_tokens": None, "output_tokens": 9} | {
            "output_tokens_details": details
        }
        assert fed(message_start(), message_delta(usage)) == [
            Finished(usage=Usage(240, 1, 200, 30), model="claude-x"),
            Finished(FinishReason.STOP, Usage(242, 9, 200, 30, 5)),
        ]

    def test_a_cut_stream_knows_its_input_and_is_not_done(self) -> None:
        decoder, cut = CODEC.decoder(), Fold()
        whole = [message_start(), block_start(0, text("")), delta(0, "text_delta", text="Hel"), block_stop(0)]
        for payload in [*whole, message_delta({"output_tokens": 3})]:
            for event in decoder.feed(ServerSentEvent(orjson.dumps(payload).decode())):
                cut.add(event)
            if payload["type"] == "content_block_delta":
                assert cut.completion() == ProviderCompletion("Hel", usage=Usage(240, 1, 200, 30), model="claude-x")
        assert not decoder.done
        decoder.feed(ServerSentEvent('{"type":"message_stop"}'))
        assert decoder.done

    def test_an_error_event(self) -> None:
        with pytest.raises(ProviderRateLimitedError) as caught:
            fed(message_start(), {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}})
        assert (caught.value.message, caught.value.status, caught.value.sent) == ("slow down", None, True)
        with pytest.raises(ProviderUnavailableError):
            fed({"type": "error", "error": {"type": "from_the_future"}})

    @pytest.mark.parametrize("data", ["", "{", "[DONE]", "[]", "null", '"message_stop"'])
    def test_events_that_are_no_objects(self, data: str) -> None:
        with pytest.raises(ProviderBadResponseError):
            CODEC.decoder().feed(ServerSentEvent(data))

    @pytest.mark.parametrize(
        "payloads",
        [
            [message_start(None)],
            [message_start({"output_tokens": 1})],
            [block_start(0, tool_use()), block_start(0, tool_use())],
            [{"type": "content_block_stop", "index": "0"}],
            [delta(0, "text_delta")],
            [block_start(0, tool_use()), delta(0, "input_json_delta", partial_json={})],
            [{"type": "content_block_delta", "index": [], "delta": {"type": "input_json_delta", "partial_json": "{"}}],
            [message_start(), {"type": "message_delta", "usage": {"output_tokens": 1}}],
            [message_start(), message_delta(None)],
            [message_start(), message_delta({"input_tokens": 1})],
        ],
    )
    def test_malformed_events(self, payloads: list[Any]) -> None:
        with pytest.raises(ProviderBadResponseError):
            fed(*payloads)

    @given(data=st.data())
    def test_any_chunking_gives_the_same_answer(self, data: st.DataObject) -> None:
        words = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
        thought = data.draw(st.text(st.characters(exclude_categories=["Cs"])))
        arguments = data.draw(st.dictionaries(st.text("äb\n🌸"), st.integers(0, 9), max_size=2))
        fragments = orjson.dumps(arguments).decode()
        cut = data.draw(st.integers(0, len(fragments)))
        payloads = [
            message_start(),
            block_start(0, {"type": "thinking", "thinking": ""}),
            delta(0, "thinking_delta", thinking=thought),
            block_start(1, text("")),
            *(delta(1, "text_delta", text=word) for word in words),
            block_start(2, tool_use()),
            delta(2, "input_json_delta", partial_json=fragments[:cut]),
            delta(2, "input_json_delta", partial_json=fragments[cut:]),
            block_stop(2),
            message_delta({"output_tokens": 7}, "tool_use"),
            {"type": "message_stop"},
        ]
        wire = b"".join(b"event: %s\ndata: %s\n\n" % (p["type"].encode(), orjson.dumps(p)) for p in payloads)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
        sse, decoder = SSEDecoder(), CODEC.decoder()
        chunks = (wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True))
        events = [event for chunk in chunks for sent in sse.feed(chunk) for event in decoder.feed(sent)]
        blocks = ({"type": "thinking", "thinking": thought}, text("".join(words)), tool_use(input=arguments))
        usage = {**INPUT, "output_tokens": 7}
        assert fold(events) == CODEC.decode(answer(*blocks, stop_reason="tool_use", usage=usage, model="claude-x"))
        assert decoder.done
        assert all(event.text for event in events if isinstance(event, TextDelta | ReasoningDelta))


class TestError:
    @pytest.mark.parametrize(
        ("status", "code", "kind", "retryable"),
        [
            (400, "invalid_request_error", ProviderInvalidRequestError, False),
            (401, "authentication_error", ProviderAuthError, False),
            (402, "billing_error", ProviderAuthError, False),
            (403, "permission_error", ProviderAuthError, False),
            (404, "not_found_error", ProviderInvalidRequestError, False),
            (413, "request_too_large", ProviderInvalidRequestError, False),
            (429, "rate_limit_error", ProviderRateLimitedError, True),
            (500, "api_error", ProviderUnavailableError, True),
            (504, "timeout_error", ProviderTimeoutError, True),
            (529, "overloaded_error", ProviderUnavailableError, True),
            (409, "conflict_error", ProviderInvalidRequestError, False),
            (529, "from_the_future", ProviderUnavailableError, True),
        ],
    )
    def test_table(self, status: int, code: str, kind: type[ProviderError], retryable: bool) -> None:
        error = CODEC.error(status, {"type": "error", "error": {"type": code, "message": "words"}}, 1.5)
        assert type(error) is kind
        assert (error.retryable, error.vendor_code, error.status, error.retry_after) == (retryable, code, status, 1.5)
        assert error.provider == "anthropic"

    def test_vendor_text_is_cut_and_never_shown_of_a_refused_key(self) -> None:
        long = {"error": {"type": "invalid_request_error", "message": "x" * 900}}
        assert CODEC.error(400, long, None).message == "x" * 500
        secret = {"error": {"type": "authentication_error", "message": "no such key: sk-ant-1"}}
        assert "sk-ant-1" not in CODEC.error(401, secret, None).message

    @pytest.mark.parametrize("payload", [None, [], "<html>", {}, {"error": "x"}, {"error": {"type": 1, "message": {}}}])
    def test_bodies_that_say_nothing(self, payload: Any) -> None:
        error = CODEC.error(529, payload, None)
        assert isinstance(error, ProviderUnavailableError)
        assert (error.message, error.vendor_code) == ("anthropic answered with an error, status 529", None)
