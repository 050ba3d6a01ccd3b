"""How the chat-completions codecs classify errors: by status and the vendor's own code, in and outside of a 200."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from providers.compatible import CompatibleCodec
from providers.errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderContentFilteredError,
    ProviderContextLengthError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from providers.groq import GroqCodec
from providers.mistral import MistralCodec
from providers.openai import OpenAICodec
from providers.openai_dialect import ChatCompletionsCodec
from providers.openrouter import OpenRouterCodec
from providers.sse import ServerSentEvent

OPENAI = OpenAICodec()
GROQ = GroqCodec()
MISTRAL = MistralCodec()
OPENROUTER = OpenRouterCodec()
LOCAL = CompatibleCodec("local")
every_codec = pytest.mark.parametrize(
    "codec", [OPENAI, GROQ, MISTRAL, OPENROUTER, LOCAL], ids=lambda codec: codec.provider
)


def error(code: Any = None, kind: Any = None, message: Any = "words", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "code": code, **more}}


def routed(code: int, **metadata: Any) -> dict[str, Any]:
    return {"error": {"message": "words", "code": code, "metadata": metadata}}


def told_inside_200(codec: ChatCompletionsCodec, payload: Any) -> list[ProviderError]:
    """The same error in a plain answer and in a stream."""
    with pytest.raises(ProviderError) as plain:
        codec.decode(payload)
    with pytest.raises(ProviderError) as streamed:
        codec.decoder().feed(ServerSentEvent(orjson.dumps(payload).decode()))
    return [plain.value, streamed.value]


@every_codec
@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, ProviderInvalidRequestError, False),
        (401, ProviderAuthError, False),
        (402, ProviderRateLimitedError, False),
        (403, ProviderAuthError, False),
        (404, ProviderInvalidRequestError, False),
        (408, ProviderTimeoutError, True),
        (413, ProviderInvalidRequestError, False),
        (422, ProviderInvalidRequestError, False),
        (429, ProviderRateLimitedError, True),
        (500, ProviderUnavailableError, True),
        (502, ProviderUnavailableError, True),
        (503, ProviderUnavailableError, True),
        (504, ProviderTimeoutError, True),
        (529, ProviderUnavailableError, True),
        (302, ProviderBadResponseError, True),
    ],
)
@pytest.mark.parametrize("payload", [None, [], "x", {}, {"error": {}}, {"error": [1]}, {"message": 1}, {"detail": 1}])
def test_a_status_is_enough(
    codec: ChatCompletionsCodec, status: int, kind: type[ProviderError], *, retryable: bool, payload: Any
) -> None:
    got = codec.error(status, payload, 1.5)
    assert type(got) is kind
    assert (got.status, got.retryable, got.retry_after, got.vendor_code) == (status, retryable, 1.5, None)
    assert got.message


@pytest.mark.parametrize(
    ("codec", "status", "payload", "kind", "retryable"),
    [
        (OPENAI, 400, error("context_length_exceeded", "invalid_request_error"), ProviderContextLengthError, False),
        (OPENAI, 400, error("content_filter"), ProviderContentFilteredError, False),
        (OPENAI, 400, error("content_policy_violation"), ProviderContentFilteredError, False),
        (OPENAI, 400, error("invalid_api_key", "invalid_request_error"), ProviderAuthError, False),
        (OPENAI, 401, error(None, "invalid_request_error"), ProviderAuthError, False),
        (OPENAI, 404, error("model_not_found", "invalid_request_error"), ProviderInvalidRequestError, False),
        (OPENAI, 429, error("rate_limit_exceeded", "tokens"), ProviderRateLimitedError, True),
        (OPENAI, 429, error("insufficient_quota", "insufficient_quota"), ProviderRateLimitedError, False),
        (OPENAI, 429, error("project_spend_limit_exceeded", "insufficient_quota"), ProviderRateLimitedError, False),
        (GROQ, 400, error("tool_use_failed", "invalid_request_error"), ProviderBadResponseError, True),
        (GROQ, 400, error("json_validate_failed", "invalid_request_error"), ProviderBadResponseError, True),
        (GROQ, 413, error("rate_limit_exceeded", "tokens"), ProviderInvalidRequestError, False),
        (GROQ, 498, error("capacity_exceeded"), ProviderUnavailableError, True),
        (
            MISTRAL,
            400,
            {"object": "error", "type": "invalid_model", "code": "1500"},
            ProviderInvalidRequestError,
            False,
        ),
        (MISTRAL, 429, {"type": "service_tier_capacity_exceeded", "code": "3505"}, ProviderRateLimitedError, True),
        (OPENROUTER, 402, routed(402), ProviderRateLimitedError, False),
        (OPENROUTER, 402, routed(402, limit_source="openrouter_in_flight_budget"), ProviderRateLimitedError, True),
        (OPENROUTER, 403, routed(403, limit_source="openrouter_key_limit"), ProviderRateLimitedError, False),
        (OPENROUTER, 403, routed(403, limit_source=["x"]), ProviderAuthError, False),
        (OPENROUTER, 403, routed(403, reasons=["violence"], flagged_input="…"), ProviderContentFilteredError, False),
        (OPENROUTER, 403, routed(403, error_type="content_policy_violation"), ProviderContentFilteredError, False),
        (OPENROUTER, 403, routed(403, error_type="permission_denied"), ProviderAuthError, False),
        (OPENROUTER, 400, routed(400, error_type="context_length_exceeded"), ProviderContextLengthError, False),
        (OPENROUTER, 503, routed(503, error_type="not_found"), ProviderInvalidRequestError, False),
    ],
)
def test_a_code_says_more_than_the_status(
    codec: ChatCompletionsCodec, status: int, payload: Any, kind: type[ProviderError], *, retryable: bool
) -> None:
    got = codec.error(status, payload, None)
    assert (type(got), got.retryable, got.status) == (kind, retryable, status)


@pytest.mark.parametrize(
    ("codec", "payload", "kind"),
    [
        (OPENAI, error(None, "server_error"), ProviderUnavailableError),
        (OPENAI, error("rate_limit_exceeded", "tokens"), ProviderRateLimitedError),
        (OPENAI, error("context_length_exceeded", "invalid_request_error"), ProviderContextLengthError),
        (OPENAI, error(None, "invalid_request_error"), ProviderInvalidRequestError),
        (GROQ, {"x_groq": {"id": "req_1", "error": "over capacity"}}, ProviderUnavailableError),
        (MISTRAL, {"object": "error", "message": "no", "type": "internal_server_error"}, ProviderUnavailableError),
        (OPENROUTER, routed(429), ProviderRateLimitedError),
        (OPENROUTER, routed(502, provider_name="X"), ProviderUnavailableError),
        (OPENROUTER, routed(200, error_type="timeout"), ProviderTimeoutError),
        (OPENROUTER, routed(402), ProviderRateLimitedError),
        (LOCAL, error(400, "BadRequestError"), ProviderInvalidRequestError),
        (LOCAL, error(0, "odd"), ProviderUnavailableError),
        (LOCAL, {"error": "model runner has stopped"}, ProviderUnavailableError),
    ],
)
def test_an_error_inside_a_200(codec: ChatCompletionsCodec, payload: Any, kind: type[ProviderError]) -> None:
    for got in told_inside_200(codec, payload):
        assert (type(got), got.provider, got.status, got.sent) == (kind, codec.provider, None, True)


@every_codec
def test_a_choice_may_end_with_an_error(codec: ChatCompletionsCodec) -> None:
    choice: dict[str, Any] = {"index": 0, "message": {"content": "a"}, "delta": {"content": "a"}}
    choice |= {"finish_reason": "error", "error": {"code": 429, "message": "slow down"}}
    for got in told_inside_200(codec, {"choices": [choice]}):
        assert (type(got), got.message, got.vendor_code) == (ProviderRateLimitedError, "slow down", "429")
    del choice["error"]
    for got in told_inside_200(codec, {"choices": [choice]}):
        assert type(got) is ProviderUnavailableError


@every_codec
def test_words_never_decide(codec: ChatCompletionsCodec) -> None:
    text = "invalid_api_key context_length_exceeded content_filter insufficient_quota rate limit"
    for payload in (error(message=text), {"message": text}, {"error": text}, {"detail": text}):
        got = codec.error(400, payload, None)
        assert (type(got), got.message, got.vendor_code) == (ProviderInvalidRequestError, text, None)


@every_codec
def test_the_vendor_s_words_are_cut_and_never_passed_on_about_keys(codec: ChatCompletionsCodec) -> None:
    assert codec.error(400, error(message="ü" * 900), None).message == "ü" * 500
    refused = codec.error(401, error(message="Incorrect API key provided: sk-secret"), None)
    assert refused.message == f"{codec.provider} refused the API key"
    assert "sk-secret" not in str(refused)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}]}, "body.messages.0: Field required"),
        ({"detail": [{"msg": "one"}, {"loc": "x", "msg": "two"}, "x", {"loc": []}]}, "one; two"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"object": "error", "message": {"detail": [{"loc": ["seed"], "msg": "no"}]}}, "seed: no"),
        ({"detail": []}, "mistral answered with an error"),
    ],
)
def test_lists_of_invalid_fields(payload: Any, message: str) -> None:
    got = MISTRAL.error(422, payload, None)
    assert (type(got), got.message) == (ProviderInvalidRequestError, message)


@pytest.mark.parametrize(
    ("codec", "payload", "code"),
    [
        (OPENAI, error("model_not_found", "invalid_request_error"), "model_not_found"),
        (OPENAI, error(None, "server_error"), "server_error"),
        (LOCAL, error(404, "NotFoundError"), "NotFoundError"),
        (LOCAL, error(404), "404"),
        (OPENROUTER, routed(404, error_type="not_found"), "not_found"),
        (OPENROUTER, routed(404), "404"),
        (OPENROUTER, routed(404, error_type=["x"]), "404"),
    ],
)
def test_the_vendor_s_code_is_kept(codec: ChatCompletionsCodec, payload: Any, code: str) -> None:
    assert codec.error(404, payload, None).vendor_code == code
