"""The vendors' batch APIs on the wire, held against the types of their own client libraries."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest
from anthropic.types.messages import MessageBatch, MessageBatchIndividualResponse
from openai.types import Batch as OpenAIBatch

from providers.anthropic import AnthropicCodec
from providers.anthropic_batches import AnthropicBatchCodec
from providers.batching import BatchCall, Sent
from providers.errors import ProviderBadResponseError, ProviderInvalidRequestError, ProviderRateLimitedError
from providers.openai import OpenAICodec
from providers.openai_batches import OpenAIBatchCodec
from providers.prices import BATCH_SHARES
from providers.registry import ROWS
from providers.types import CompletionRequest, Message, Role
from tests.persistence.entries import NOON

OPENAI, ANTHROPIC = OpenAIBatchCodec(OpenAICodec()), AnthropicBatchCodec(AnthropicCodec())
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


def request(model: str) -> CompletionRequest:
    return CompletionRequest(model, (Message(Role.USER, "hello"),), max_tokens=9)


def openai_batch(**changes: Any) -> dict[str, Any]:
    values = {
        "id": "batch_1",
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "created_at": 1,
        "status": "in_progress",
    }
    found = {**values, **changes}
    OpenAIBatch.model_validate(found, strict=True)
    return found


def test_who_has_a_batch_api_has_its_price() -> None:
    assert {row.name for row in ROWS if row.batch_codec} == BATCH_SHARES.keys()


def test_openai_s_lines_are_requests_of_their_endpoint() -> None:
    chat, thinking = OPENAI.line("0-1", request("gpt-4o-mini")), OPENAI.line("1-1", request("o4-mini"))
    assert (chat.kind, thinking.kind) == ("/v1/chat/completions", "/v1/responses")
    line = orjson.loads(chat.content)
    assert (line["custom_id"], line["method"], line["url"]) == ("0-1", "POST", chat.kind)
    assert line["body"]["model"] == "gpt-4o-mini"
    form = OPENAI.upload([chat, chat])
    boundary = form.headers["content-type"].partition("boundary=")[2].encode()
    parts = [part for part in (form.body or b"").split(b"--" + boundary) if part.strip(b"-\r\n")]
    assert [part.partition(b"\r\n\r\n")[2].strip() for part in parts] == [
        b"batch",
        chat.content + b"\n" + chat.content,
    ]
    made = OPENAI.create([chat], {"id": "file-1"}, "bat_1/1")
    assert orjson.loads(made.body or b"") == {
        "input_file_id": "file-1",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata": {"ai_middleware": "bat_1/1"},
    }


@pytest.mark.parametrize(
    ("changes", "ended", "failure", "files"),
    [
        ({}, False, None, []),
        ({"status": "finalizing"}, False, None, []),
        ({"status": "completed", "output_file_id": "a", "error_file_id": "b"}, True, None, ["a", "b"]),
        ({"status": "expired", "output_file_id": "a"}, True, None, ["a"]),
        ({"status": "cancelled"}, True, None, []),
        ({"status": "failed", "errors": {"object": "list", "data": [{"message": "bad"}]}}, True, "bad", []),
    ],
)
def test_openai_s_states(changes: dict[str, Any], ended: bool, failure: str | None, files: list[str]) -> None:
    status = OPENAI.status(openai_batch(**changes))
    assert (status.id, status.ended, status.failure) == ("batch_1", ended, failure)
    assert status.results == tuple(BatchCall(f"/files/{file}/content") for file in files)


def sent(name: str = "bat_1/2", lines: int = 3) -> Sent:
    return Sent(name, lines, NOON, NOON + timedelta(minutes=10))


def anthropic_batch(**changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)
    values = {
        "id": "msgbatch_1",
        "type": "message_batch",
        "processing_status": "ended",
        "request_counts": {**counts, "errored": 1, "succeeded": 2},
        "created_at": NOON.isoformat(),
        "expires_at": (NOON + timedelta(days=1)).isoformat(),
    }
    found = {**values, **changes}
    MessageBatch.model_validate(found)
    return found


def test_openai_s_batch_is_found_by_its_name() -> None:
    named = openai_batch(id="batch_2", metadata={"ai_middleware": "bat_1/2"})
    listed = {"object": "list", "data": [openai_batch(), named]}
    assert [each.id for each in OPENAI.found(listed, sent())] == ["batch_2"]
    assert OPENAI.found(listed, sent("bat_1/1")) == []


def test_anthropic_s_batch_may_be_one_of_that_time_with_as_many_requests() -> None:
    early, late = NOON - timedelta(seconds=1), NOON + timedelta(minutes=11)
    others = [anthropic_batch(id=f"at {each}", created_at=each.isoformat()) for each in (early, late)]
    going_on = anthropic_batch(id="msgbatch_2", processing_status="in_progress", created_at="2026-03-01T12:00:01.5Z")
    listed = {"data": [*others, going_on, anthropic_batch()], "has_more": False, "first_id": "x", "last_id": "y"}
    found = ANTHROPIC.found(listed, sent())
    assert [(each.id, each.ended) for each in found] == [("msgbatch_2", False), ("msgbatch_1", True)]
    assert ANTHROPIC.found(listed, sent(lines=2)) == []


def test_a_list_goes_on_as_long_as_it_is_of_that_time() -> None:
    times = {OPENAI: int(NOON.timestamp()), ANTHROPIC: NOON.isoformat()}
    before = {OPENAI: times[OPENAI] - 1, ANTHROPIC: (NOON - timedelta(seconds=1)).isoformat()}
    for codec, made, name in ((OPENAI, openai_batch, "after=b_1"), (ANTHROPIC, anthropic_batch, "after_id=b_1")):
        page = [made(id="b_1", created_at=times[codec])]
        assert codec.oldest({"data": page, "has_more": True}, sent()) == "b_1"
        assert codec.find("b_1").path.endswith(f"&{name}")
        assert codec.oldest({"data": page, "has_more": False}, sent()) is None
        assert codec.oldest({"data": [], "has_more": True}, sent()) is None
        assert codec.oldest({"data": [made(created_at=before[codec])], "has_more": True}, sent()) is None


def test_openai_s_results() -> None:
    answered = {"custom_id": "0-1", "response": {"status_code": 200, "body": ANSWER}, "error": None}
    result = OPENAI.result(answered)
    assert result.answer is not None
    assert (result.custom_id, result.answer.content) == ("0-1", "hi")
    refusal = {"error": {"message": "no", "type": "invalid_request_error"}}
    refused = OPENAI.result({"custom_id": "1-1", "response": {"status_code": 400, "body": refusal}, "error": None})
    assert isinstance(refused.error, ProviderInvalidRequestError)
    undone = {"custom_id": "2-1", "response": None, "error": {"code": "batch_expired", "message": "too late"}}
    assert (OPENAI.result(undone).answer, OPENAI.result(undone).error) == (None, None)


def test_anthropic_s_lines_results_and_states() -> None:
    line = ANTHROPIC.line("0-1", request("claude-haiku-4-5"))
    [asked] = orjson.loads(ANTHROPIC.create([line], None, "x").body or b"")["requests"]
    assert (asked["custom_id"], asked["params"]["model"], "stream" in asked["params"]) == (
        "0-1",
        "claude-haiku-4-5",
        False,
    )
    state = anthropic_batch()
    assert ANTHROPIC.status(state).results[0].path == "/v1/messages/batches/msgbatch_1/results"
    assert not ANTHROPIC.status({**state, "processing_status": "canceling"}).ended
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}, "request_id": None}
    lines: list[dict[str, Any]] = [
        {"custom_id": "0-1", "result": {"type": "succeeded", "message": MESSAGE}},
        {"custom_id": "1-1", "result": {"type": "errored", "error": error}},
        {"custom_id": "2-1", "result": {"type": "expired"}},
    ]
    for each in lines:
        MessageBatchIndividualResponse.model_validate(each)
    answered, errored, expired = map(ANTHROPIC.result, lines)
    assert answered.answer is not None
    assert answered.answer.content == "hi"
    assert isinstance(errored.error, ProviderRateLimitedError)
    assert (expired.answer, expired.error) == (None, None)


@pytest.mark.parametrize("codec", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("payload", [None, [], {}, {"id": 1, "status": "x"}, {"id": "x"}])
def test_what_is_no_answer_of_theirs(codec: Any, payload: Any) -> None:
    with pytest.raises(ProviderBadResponseError):
        codec.status(payload)
    with pytest.raises(ProviderBadResponseError):
        codec.result(payload)
    with pytest.raises(ProviderBadResponseError):
        codec.found(payload, sent())
