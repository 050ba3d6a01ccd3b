"""What the transcripts don't show of the Gemini codec: odd names, histories, malformed answers, the error table."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderContentFilteredError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsendableRequestError,
)
from providers.fold import fold
from providers.gemini import GeminiCodec
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
    Usage,
)

CODEC = GeminiCodec()
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"


def request(*messages: Message, model: str = "gemini-2.5-flash", **fields: Any) -> CompletionRequest:
    return CompletionRequest(model=model, messages=messages or (Message(Role.USER, "hi"),), **fields)


def calling(*calls: ToolCall, content: str | None = None) -> Message:
    return Message(Role.ASSISTANT, content, tool_calls=calls)


def result(call_id: str, content: str | None) -> Message:
    return Message(Role.TOOL, content, tool_call_id=call_id)


def answer(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **more}


def call(name: str, **fields: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, **fields}}


def event(payload: Any) -> ServerSentEvent:
    return ServerSentEvent(orjson.dumps(payload).decode())


def streamed(*payloads: Any) -> ProviderCompletion:
    decoder = CODEC.decoder()
    return fold(neutral for payload in payloads for neutral in decoder.feed(event(payload)))


def failure(status: str | None, *details: Any, message: Any = "words", code: Any = 400) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


class TestEncode:
    @pytest.mark.parametrize(
        ("model", "segment"),
        [
            ("gemini-2.5-flash", "gemini-2.5-flash"),
            ("models/gemini-2.5-pro", "models%2Fgemini-2.5-pro"),
            ("../../v1/files", "..%2F..%2Fv1%2Ffiles"),
            ("..", ".."),
            ("a?key=b&alt=json#c", "a%3Fkey%3Db%26alt%3Djson%23c"),
            ("a:countTokens", "a%3AcountTokens"),
            ("%2e%2e", "%252e%252e"),
            ("modèle\r\nx", "mod%C3%A8le%0D%0Ax"),
        ],
    )
    def test_a_model_name_stays_inside_its_path_segment(self, model: str, segment: str) -> None:
        assert CODEC.encode(request(model=model), stream=False).path == f"/v1beta/models/{segment}:generateContent"
        streaming = CODEC.encode(request(model=model), stream=True).path
        assert streaming == f"/v1beta/models/{segment}:streamGenerateContent?alt=sse"

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_no_model_name_adds_a_segment_or_a_query(self, model: str) -> None:
        path = CODEC.encode(request(model=model), stream=False).path
        assert path.isascii()
        assert path.split("/")[:3] == ["", "v1beta", "models"]
        assert (path.count("/"), path.count(":"), path.count("?"), path.count("#")) == (3, 1, 0, 0)
        assert path.rsplit("/", 1)[1] not in {".", ".."}

    def test_the_key_is_a_header_and_nowhere_else(self) -> None:
        assert CODEC.headers(Credentials("secret")) == {"x-goog-api-key": "secret"}
        assert CODEC.provider == "google"

    def test_results_of_one_turn_share_a_content_and_a_later_turn_opens_its_own(self) -> None:
        history = (
            calling(ToolCall("a", "first", "{}"), ToolCall("b", "second", "{}"), content="Looking."),
            result("b", "[1]"),
            result("a", '{"ok": true}'),
            calling(ToolCall("c", "third", "{}")),
            result("c", None),
        )
        contents = CODEC.encode(request(*history), stream=False).body["contents"]
        assert [content["role"] for content in contents] == ["model", "user", "model", "user"]
        assert contents[0]["parts"][0] == {"text": "Looking."}
        assert contents[1]["parts"] == [
            {"functionResponse": {"id": "b", "name": "second", "response": {"result": "[1]"}}},
            {"functionResponse": {"id": "a", "name": "first", "response": {"ok": True}}},
        ]
        assert contents[3]["parts"] == [
            {"functionResponse": {"id": "c", "name": "third", "response": {"result": ""}}},
        ]

    def test_an_id_used_again_names_the_latest_call(self) -> None:
        history = (
            calling(ToolCall("call_0", "first", "{}")),
            result("call_0", "1"),
            calling(ToolCall("call_0", "second", "{}")),
            result("call_0", "2"),
        )
        contents = CODEC.encode(request(*history), stream=False).body["contents"]
        assert [contents[index]["parts"][0]["functionResponse"]["name"] for index in (1, 3)] == ["first", "second"]

    def test_a_result_without_an_earlier_call_is_refused_before_it_is_sent(self) -> None:
        late = (result("a", "1"), calling(ToolCall("a", "first", "{}")))
        with pytest.raises(UnsendableRequestError, match="'a'") as caught:
            CODEC.encode(request(*late), stream=False)
        assert caught.value.sent is False

    @pytest.mark.parametrize("arguments", ["", "{", "[]", "1", "null", "{'a': 1}", '{"a": NaN}'])
    def test_arguments_that_are_no_json_object_are_refused_before_they_are_sent(self, arguments: str) -> None:
        with pytest.raises(UnsendableRequestError) as caught:
            CODEC.encode(request(calling(ToolCall("a", "first", arguments))), stream=False)
        assert caught.value.sent is False
        assert caught.value.provider == "google"

    @pytest.mark.parametrize(
        ("model", "signatures"),
        [("gemini-3-pro", [True, False]), ("gemini-2.5-pro", [False, False]), ("gemma-3-27b-it", [False, False])],
    )
    def test_calls_of_another_vendors_are_excused_where_signatures_are_wanted(
        self, model: str, signatures: list[bool]
    ) -> None:
        history = request(calling(ToolCall("a", "first", "{}"), ToolCall("b", "second", "{}")), model=model)
        (turn,) = CODEC.encode(history, stream=False).body["contents"]
        expected = ["skip_thought_signature_validator" if each else None for each in signatures]
        assert [part.get("thoughtSignature") for part in turn["parts"]] == expected

    def test_an_empty_text_is_sent_as_one_but_never_beside_calls(self) -> None:
        history = (Message(Role.USER, ""), calling(ToolCall("a", "first", "{}"), content=""))
        contents = CODEC.encode(request(*history), stream=False).body["contents"]
        assert contents[0]["parts"] == [{"text": ""}]
        assert [list(part) for part in contents[1]["parts"]] == [["functionCall"]]

    def test_what_is_not_asked_for_is_not_sent(self) -> None:
        body = CODEC.encode(request(end_user="me", tools=(Tool("ping"),)), stream=False).body
        assert body == {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "tools": [{"functionDeclarations": [{"name": "ping"}]}],
        }

    def test_options_win_and_generation_config_merges_key_by_key(self) -> None:
        given_options = {"generationConfig": {"topP": 1, "thinkingConfig": {"thinkingBudget": 0}}, "tools": []}
        asked = request(temperature=0.5, top_p=0.1, tools=(Tool("ping"),), options=given_options)
        body = CODEC.encode(asked, stream=False).body
        assert body["generationConfig"] == {"temperature": 0.5, "topP": 1, "thinkingConfig": {"thinkingBudget": 0}}
        assert body["tools"] == []
        assert given_options["generationConfig"] == {"topP": 1, "thinkingConfig": {"thinkingBudget": 0}}
        assert CODEC.encode(request(seed=1, options={"generationConfig": None}), stream=False).body == {
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "generationConfig": None,
        }


class TestDecode:
    @pytest.mark.parametrize(
        ("vendor", "neutral"),
        [
            ("STOP", FinishReason.STOP),
            ("MAX_TOKENS", FinishReason.LENGTH),
            ("SAFETY", FinishReason.CONTENT_FILTER),
            ("RECITATION", FinishReason.CONTENT_FILTER),
            ("BLOCKLIST", FinishReason.CONTENT_FILTER),
            ("PROHIBITED_CONTENT", FinishReason.CONTENT_FILTER),
            ("SPII", FinishReason.CONTENT_FILTER),
            ("IMAGE_SAFETY", FinishReason.CONTENT_FILTER),
            ("LANGUAGE", FinishReason.CONTENT_FILTER),
            ("MALFORMED_FUNCTION_CALL", FinishReason.OTHER),
            ("OTHER", FinishReason.OTHER),
            ("SOMETHING_NEW", FinishReason.OTHER),
        ],
    )
    def test_finish_reasons(self, vendor: str, neutral: FinishReason) -> None:
        assert CODEC.decode(answer({"text": "a"}, finish=vendor)).finish_reason is neutral

    def test_an_answer_the_filter_stopped_has_no_content(self) -> None:
        stopped = {"candidates": [{"finishReason": "SAFETY", "index": 0}], "modelVersion": "m"}
        assert CODEC.decode(stopped) == ProviderCompletion(finish_reason=FinishReason.CONTENT_FILTER, model="m")

    def test_calls_cut_by_the_length_are_not_a_wish_to_call(self) -> None:
        assert CODEC.decode(answer(call("f"), finish="MAX_TOKENS")).finish_reason is FinishReason.LENGTH

    def test_unknown_parts_and_further_candidates_are_left_out(self) -> None:
        payload = answer({"executableCode": {"code": "1"}}, {"text": "a"}, {"novelty": 1}, {"text": "b"})
        payload["candidates"].append({"index": 1, "content": {"parts": [{"text": "c"}]}, "finishReason": "MAX_TOKENS"})
        assert CODEC.decode(payload) == ProviderCompletion(content="ab", finish_reason=FinishReason.STOP)

    def test_a_count_left_out_is_zero(self) -> None:
        usage = {"promptTokenCount": 5, "totalTokenCount": 5}
        assert CODEC.decode(answer(usageMetadata=usage)).usage == Usage(input_tokens=5)

    def test_a_blocked_prompt_is_an_error_in_a_stream_too(self) -> None:
        blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
        with pytest.raises(ProviderContentFilteredError) as caught:
            CODEC.decoder().feed(event(blocked))
        assert (caught.value.vendor_code, caught.value.status, caught.value.retryable) == ("SAFETY", None, False)

    def test_feedback_without_a_block_is_no_error(self) -> None:
        assert CODEC.decode(answer({"text": "a"}, promptFeedback={"safetyRatings": []})).content == "a"

    @pytest.mark.parametrize(
        "payload",
        [
            None,
            [],
            "text",
            {},
            {"candidates": []},
            {"candidates": {}},
            {"candidates": [1]},
            {"candidates": [{"content": []}]},
            {"candidates": [{"content": {"parts": {}}}]},
            {"candidates": [{"finishReason": 1}]},
            answer(1),
            answer({"text": 1}),
            answer({"functionCall": "f"}),
            answer({"functionCall": {"args": {}}}),
            answer(call("f", args="{}")),
            answer(call("f", id=1)),
            answer(usageMetadata=[1]),
            answer(usageMetadata={"promptTokenCount": "1"}),
            answer(usageMetadata={"promptTokenCount": -1}),
            answer(modelVersion=1),
            {"promptFeedback": "no"},
        ],
    )
    def test_malformed(self, payload: Any) -> None:
        with pytest.raises(ProviderBadResponseError):
            CODEC.decode(payload)

    def test_arguments_nested_too_deep_are_malformed(self) -> None:
        nested: dict[str, Any] = {}
        for _ in range(500):
            nested = {"a": nested}
        with pytest.raises(ProviderBadResponseError):
            CODEC.decode(answer(call("f", args=nested)))


class TestStream:
    @pytest.mark.parametrize("data", ["", "{", "[DONE]", "<html>", "[]", "null"])
    def test_a_chunk_that_is_no_answer(self, data: str) -> None:
        with pytest.raises(ProviderBadResponseError):
            CODEC.decoder().feed(ServerSentEvent(data))

    def test_a_stream_is_done_by_its_finish_reason_alone(self) -> None:
        decoder = CODEC.decoder()
        usage = {"promptTokenCount": 2, "candidatesTokenCount": 1}
        decoder.feed(event(answer({"text": "a"}, finish=None, usageMetadata=usage)))
        assert not decoder.done
        assert list(decoder.feed(event({"usageMetadata": usage}))) == [Finished(usage=Usage(2, 1))]
        assert not decoder.done
        assert list(decoder.feed(event(answer(finish="MAX_TOKENS")))) == [Finished(FinishReason.LENGTH)]
        assert decoder.done

    def test_what_has_nothing_counted_yet_is_no_usage(self) -> None:
        events = CODEC.decoder().feed(event(answer({"text": "a"}, finish=None, usageMetadata={"trafficType": "X"})))
        assert list(events) == [TextDelta("a")]

    def test_calls_are_counted_over_chunks_and_the_last_usage_holds(self) -> None:
        completion = streamed(
            answer(call("f", args={"x": 1}), finish=None, usageMetadata={"promptTokenCount": 9}),
            answer(call("g", id="own"), call("h"), finish=None),
            answer({"text": ""}, usageMetadata={"promptTokenCount": 9, "candidatesTokenCount": 4}),
        )
        assert completion == ProviderCompletion(
            tool_calls=(ToolCall("call_0", "f", '{"x":1}'), ToolCall("own", "g", "{}"), ToolCall("call_2", "h", "{}")),
            finish_reason=FinishReason.TOOL_CALLS,
            usage=Usage(9, 4),
        )

    @pytest.mark.parametrize(
        ("payload", "kind", "retry_after"),
        [
            (failure("RESOURCE_EXHAUSTED", {"@type": RETRY_INFO, "retryDelay": "2s"}), ProviderRateLimitedError, 2.0),
            (failure(None, code=500), ProviderUnavailableError, None),
            (failure("NEW_STATUS", code=429), ProviderRateLimitedError, None),
            ({"error": "broken"}, ProviderBadResponseError, None),
        ],
    )
    def test_an_error_object_has_no_http_status(
        self, payload: Any, kind: type[ProviderError], retry_after: float | None
    ) -> None:
        with pytest.raises(kind) as caught:
            CODEC.decoder().feed(event(payload))
        assert (caught.value.status, caught.value.retry_after) == (None, retry_after)

    @given(
        st.lists(st.sampled_from(["é", "日本", "🌸", "\r\n", "a"]) | st.text(max_size=5), max_size=5),
        st.lists(st.integers(1, 40), min_size=1, max_size=20),
    )
    def test_any_chunking_gives_the_same_fold(self, texts: list[str], sizes: list[int]) -> None:
        usage = {"promptTokenCount": 3, "candidatesTokenCount": 2}
        last = answer({"text": "end"}, call("f"), usageMetadata=usage, modelVersion="m")
        payloads = [*(answer({"text": text}, finish=None) for text in texts), last]
        body = b"".join(b"data: " + orjson.dumps(payload) + b"\r\n\r\n" for payload in payloads)
        sse, decoder, events = SSEDecoder(), CODEC.decoder(), list[StreamEvent]()
        position = turn = 0
        while position < len(body):
            size = sizes[turn % len(sizes)]
            for piece in sse.feed(body[position : position + size]):
                events.extend(decoder.feed(piece))
            position, turn = position + size, turn + 1
        assert decoder.done
        whole = answer(*({"text": text} for text in texts), {"text": "end"}, call("f"), usageMetadata=usage)
        assert fold(events) == CODEC.decode({**whole, "modelVersion": "m"})


class TestError:
    @pytest.mark.parametrize(
        ("http", "status", "kind"),
        [
            (401, "UNAUTHENTICATED", ProviderAuthError),
            (403, "PERMISSION_DENIED", ProviderAuthError),
            (400, "INVALID_ARGUMENT", ProviderInvalidRequestError),
            (400, "FAILED_PRECONDITION", ProviderInvalidRequestError),
            (404, "NOT_FOUND", ProviderInvalidRequestError),
            (400, "OUT_OF_RANGE", ProviderInvalidRequestError),
            (429, "RESOURCE_EXHAUSTED", ProviderRateLimitedError),
            (500, "INTERNAL", ProviderUnavailableError),
            (503, "UNAVAILABLE", ProviderUnavailableError),
            (504, "DEADLINE_EXCEEDED", ProviderTimeoutError),
            (503, "NEW_STATUS", ProviderUnavailableError),
            (401, None, ProviderAuthError),
        ],
    )
    def test_the_status_name_decides_and_else_the_http_status(
        self, http: int, status: str | None, kind: type[ProviderError]
    ) -> None:
        for payload in (failure(status), [failure(status)]):
            error = CODEC.error(http, payload, None)
            assert type(error) is kind
            assert (error.status, error.vendor_code, error.provider, error.sent) == (http, status, "google", True)

    def test_the_name_outweighs_the_http_status(self) -> None:
        assert type(CODEC.error(400, failure("RESOURCE_EXHAUSTED"), None)) is ProviderRateLimitedError

    def test_words_do_not_classify(self) -> None:
        wordy = failure("INVALID_ARGUMENT", message="API_KEY_INVALID: RESOURCE_EXHAUSTED, token count exceeds 1048576")
        assert type(CODEC.error(400, wordy, None)) is ProviderInvalidRequestError

    @pytest.mark.parametrize("payload", [None, [], {}, "x", {"error": None}, {"error": {"status": 5, "details": 1}}])
    def test_a_body_of_another_shape_leaves_the_http_status(self, payload: Any) -> None:
        error = CODEC.error(503, payload, None)
        assert type(error) is ProviderUnavailableError
        assert error.message == "google answered with an error, status 503"

    @pytest.mark.parametrize(
        ("delay", "seconds"),
        [("36s", 36.0), ("36.429760048s", 36.429760048), ("0s", 0.0), ("36", None), ("-1s", None), ("1e9s", None)]
        + [(junk, None) for junk in ("nans", "s", "", 36, None, {"seconds": 36}, "٣s", "9" * 400 + "s")],
    )
    def test_retry_info_is_read_when_no_header_said_it(self, delay: Any, seconds: float | None) -> None:
        payload = failure("RESOURCE_EXHAUSTED", "x", {"retryDelay": "7s"}, {"@type": RETRY_INFO, "retryDelay": delay})
        assert CODEC.error(429, payload, None).retry_after == seconds
        assert CODEC.error(429, payload, 3.0).retry_after == 3.0

    def test_vendor_words_are_cut_and_of_a_key_not_repeated(self) -> None:
        assert CODEC.error(400, failure("INVALID_ARGUMENT", message="x" * 900), None).message == "x" * 500
        refused = failure("INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"}, message="AIza-secret is not valid")
        error = CODEC.error(400, refused, None)
        assert (type(error), error.vendor_code) == (ProviderAuthError, "API_KEY_INVALID")
        assert "secret" not in str(error)
