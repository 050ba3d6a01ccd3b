"""Anthropic's Messages API (version 2023-06-01), sans-IO.

Sources: https://platform.claude.com/docs/en/api/messages (requests, answers, usage),
https://platform.claude.com/docs/en/build-with-claude/streaming (events),
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons,
https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsendableRequestError,
    error_class_for_status,
)
from .features import Feature, check_features
from .figures import is_count
from .fold import fold
from .ports import EncodedCall
from .sse import ServerSentEvent
from .types import (
    CompletionRequest,
    Credentials,
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

# The API demands `max_tokens`. This is what every model accepts: no cap is lower than that of the Claude 3 models
# (https://platform.claude.com/docs/en/about-claude/models/overview).
DEFAULT_MAX_TOKENS: Final = 4096

_PROVIDER: Final = "anthropic"
_OTHER_TIERS: Final = ("priority", "batch")
_VERSION: Final = {"anthropic-version": "2023-06-01"}
_MAX_VENDOR_TEXT = 500

_CHOICES: Final[Mapping[ToolChoiceMode, str]] = {
    ToolChoiceMode.AUTO: "auto",
    ToolChoiceMode.NONE: "none",
    ToolChoiceMode.REQUIRED: "any",
}

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}

_ERRORS: Final[Mapping[str, type[ProviderError]]] = {
    "authentication_error": ProviderAuthError,
    "permission_error": ProviderAuthError,
    "billing_error": ProviderAuthError,
    "invalid_request_error": ProviderInvalidRequestError,
    "not_found_error": ProviderInvalidRequestError,
    "request_too_large": ProviderInvalidRequestError,  # too many bytes, which says nothing of the context window
    "rate_limit_error": ProviderRateLimitedError,
    "api_error": ProviderUnavailableError,
    "overloaded_error": ProviderUnavailableError,
    "timeout_error": ProviderTimeoutError,
}

_FEATURES = frozenset({Feature.TOOLS})
_T = TypeVar("_T")


class AnthropicCodec:
    """Claude models under https://api.anthropic.com.

    Redacted thinking, thinking's signatures and the blocks of server tools are not kept; so a history never holds the
    signed thinking that some models want back with their tool calls.
    """

    provider = _PROVIDER

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """`options` go over the body. Raises UnsupportedFeatureError, UnsendableRequestError for tool
        arguments that are not a JSON object."""
        check_features(request, _PROVIDER, _FEATURES)
        optional = {
            "system": _system(request.messages),
            "tools": [_tool(tool) for tool in request.tools],
            "tool_choice": _choice(request.tool_choice) if request.tool_choice else None,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop_sequences": list(request.stop),
            "metadata": {"user_id": request.end_user} if request.end_user else None,
        }
        body = {
            "model": request.model,
            "max_tokens": DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens,
            "messages": _turns(request.messages),
            **{name: value for name, value in optional.items() if value not in (None, [])},
            **request.options,
            "stream": stream,  # after the options: how the answer travels is not the caller's to change
        }
        return EncodedCall("/v1/messages", body, _VERSION)

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return {"x-api-key": credentials.api_key}

    def decode(self, payload: Any) -> ProviderCompletion:
        """A plain answer is a stream whose blocks come whole; tool arguments are the compact JSON text of `input`."""
        if not isinstance(payload, dict):
            raise _malformed("an answer is not an object")
        if payload.get("type") == "error":
            raise _error(payload, status=None, retry_after=None)
        decoder = AnthropicStreamDecoder()
        events: list[StreamEvent] = []
        for index, block in enumerate(_required(payload, "content", list)):
            events.extend(decoder.start(index, block))
            events.extend(decoder.stop(index))
        figures = _typed(payload, "usage", dict)
        usage = _usage(figures) if figures else None
        events.append(Finished(_finish_reason(payload), usage, _typed(payload, "model", str)))
        return fold(events)

    def decoder(self) -> AnthropicStreamDecoder:
        return AnthropicStreamDecoder()

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        """By the `type` of the error object; by status where that is missing or new."""
        return _error(payload, status=status, retry_after=retry_after)


class AnthropicStreamDecoder:
    """message_start, the content blocks one after the other, message_delta, message_stop.

    The input's figures come first, so a stream that is cut off still knows them; the output's come with message_delta.
    """

    __slots__ = ("_calls", "_done", "_figures", "_unwritten")

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}  # content block → which of the tool calls it is
        self._unwritten: dict[int, str] = {}  # content block → the arguments that hold if no fragment comes
        self._figures: dict[str, Any] = {}
        self._done = False

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """Raises the ProviderError that an error event means. Events of unknown types are ignored, as the API asks."""
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError as error:
            raise _malformed("an event is not JSON") from error
        if not isinstance(payload, dict):
            raise _malformed("an event is not an object")
        kind = payload.get("type")
        if kind == "content_block_delta":
            return self._delta(payload)
        if kind == "content_block_start":
            return self.start(_required(payload, "index", int), payload.get("content_block"))
        if kind == "content_block_stop":
            return self.stop(_required(payload, "index", int))
        if kind == "message_start":
            return self._message_start(_required(payload, "message", dict))
        if kind == "message_delta":
            return self._message_delta(payload)
        if kind == "message_stop":
            self._done = True
        elif kind == "error":
            # no status: the HTTP answer itself was a 200, so what was produced before may be billed
            raise _error(payload, status=None, retry_after=None)
        return ()

    def start(self, index: int, block: Any) -> Sequence[StreamEvent]:
        """A content block opens, with what it already holds. Raises ProviderBadResponseError."""
        if not isinstance(block, dict):
            raise _malformed("a content block is not an object")
        kind = block.get("type")
        if kind == "text":
            return _text(block)
        if kind == "thinking":
            return _thinking(block)
        if kind != "tool_use":
            return ()
        if index in self._calls:
            raise _malformed("two content blocks have the same index")
        call = self._calls[index] = len(self._calls)
        try:
            self._unwritten[index] = orjson.dumps(_required(block, "input", dict)).decode()
        except orjson.JSONEncodeError as error:
            raise _malformed("a tool call's input is nested too deep") from error
        return (ToolCallDelta(call, _required(block, "id", str), _required(block, "name", str)),)

    def stop(self, index: int) -> Sequence[StreamEvent]:
        """A content block closes. A tool without parameters is called without a fragment of input."""
        arguments = self._unwritten.pop(index, None)
        return () if arguments is None else (ToolCallDelta(self._calls[index], arguments=arguments),)

    def _delta(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        delta = _required(payload, "delta", dict)
        kind = delta.get("type")
        if kind == "text_delta":
            return _text(delta)
        if kind == "thinking_delta":
            return _thinking(delta)
        if kind != "input_json_delta":
            return ()
        index = _required(payload, "index", int)
        fragment = _required(delta, "partial_json", str)
        call = self._calls.get(index)
        if call is None or not fragment:  # a server's own tool has fragments too
            return ()
        self._unwritten.pop(index, None)
        return (ToolCallDelta(call, arguments=fragment),)

    def _message_start(self, message: dict[str, Any]) -> Sequence[StreamEvent]:
        self._figures = dict(_required(message, "usage", dict))
        return (Finished(usage=_usage(self._figures), model=_typed(message, "model", str)),)

    def _message_delta(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        self._figures.pop("output_tokens", None)  # at the start it counted the first token alone
        figures = _required(payload, "usage", dict)
        self._figures.update((key, value) for key, value in figures.items() if value is not None)
        return (Finished(_finish_reason(_required(payload, "delta", dict)), _usage(self._figures)),)


def _system(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """System texts have no place among the turns; the API refuses empty text blocks."""
    return [_text_block(message.content) for message in messages if message.role is Role.SYSTEM and message.content]


def _turns(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Neighbours of one role are one turn: all results of a turn's tool calls belong into the very next user turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": []})
        turns[-1]["content"].extend(_blocks(message))
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    if message.role is Role.TOOL:
        result = {"type": "tool_result", "tool_use_id": message.tool_call_id}
        return [{**result, "content": message.content} if message.content else result]
    calls = [_tool_use(call) for call in message.tool_calls]
    return [_text_block(message.content or ""), *calls] if message.content or not calls else calls


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _tool_use(call: ToolCall) -> dict[str, Any]:
    try:
        arguments = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise UnsendableRequestError(
            f"the arguments of tool call {call.id!r} are not a JSON object", provider=_PROVIDER
        )
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _tool(tool: Tool) -> dict[str, Any]:
    description = {} if tool.description is None else {"description": tool.description}
    return {"name": tool.name, **description, "input_schema": {"type": "object", **tool.parameters}}


def _choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.name is not None:
        return {"type": "tool", "name": choice.name}
    return {"type": _CHOICES[choice.mode]}


def _text(source: dict[str, Any]) -> Sequence[StreamEvent]:
    text = _required(source, "text", str)
    return (TextDelta(text),) if text else ()


def _thinking(source: dict[str, Any]) -> Sequence[StreamEvent]:
    text = _required(source, "thinking", str)
    return (ReasoningDelta(text),) if text else ()


def _finish_reason(source: dict[str, Any]) -> FinishReason | None:
    reason = _typed(source, "stop_reason", str)
    return None if reason is None else _FINISH_REASONS.get(reason, FinishReason.OTHER)


def _usage(figures: dict[str, Any]) -> Usage:
    """The vendor's `input_tokens` leave the cache's out; ours is the sum. Thinking is part of the output.

    The price table has the standard tier's prices, with writes to the five-minute cache
    (https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing).
    """
    cached = _count(figures, "cache_read_input_tokens", 0)
    written = _count(figures, "cache_creation_input_tokens", 0)
    details = _typed(figures, "output_tokens_details", dict)
    lifetimes = _typed(figures, "cache_creation", dict) or {}
    return Usage(
        input_tokens=_count(figures, "input_tokens") + cached + written,
        output_tokens=_count(figures, "output_tokens"),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=_count(details, "thinking_tokens", 0) if details else 0,
        off_table=bool(lifetimes.get("ephemeral_1h_input_tokens")) or figures.get("service_tier") in _OTHER_TIERS,
    )


def _count(figures: dict[str, Any], key: str, default: int | None = None) -> int:
    value = figures.get(key)
    if value is None:
        value = default
    if not is_count(value):
        raise _malformed(f"{key} is not a count")
    return value


def _typed(source: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    return None if source.get(key) is None else _required(source, key, kind)


def _required(source: dict[str, Any], key: str, kind: type[_T]) -> _T:
    value = source.get(key)
    if isinstance(value, kind):
        return value
    raise _malformed(f"{key} is missing or of the wrong type")


def _error(payload: Any, *, status: int | None, retry_after: float | None) -> ProviderError:
    """Reads what it can: an odd error is never a reason to fail. `status` is the HTTP answer's, None inside a 200."""
    body = payload.get("error") if isinstance(payload, dict) else None
    told = body if isinstance(body, dict) else {}
    code, text = told.get("type"), told.get("message")
    if isinstance(code, str) and code in _ERRORS:
        kind = _ERRORS[code]
    else:
        kind = ProviderUnavailableError if status is None else error_class_for_status(status)
    if kind is ProviderAuthError:
        message = "anthropic refused the credentials, or the account behind them"  # its own words may name the key
    elif isinstance(text, str) and text:
        message = text[:_MAX_VENDOR_TEXT]
    else:
        message = "anthropic answered with an error" + (f", status {status}" if status else "")
    return kind(
        message,
        provider=_PROVIDER,
        status=status,
        vendor_code=code if isinstance(code, str) else None,
        retry_after=retry_after,
    )


def _malformed(what: str) -> ProviderBadResponseError:
    return ProviderBadResponseError(f"anthropic sent a malformed answer: {what}", provider=_PROVIDER)
