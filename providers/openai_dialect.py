"""The chat-completions wire format that many vendors share, sans-IO. A vendor's own file holds what differs.

Sources: https://platform.openai.com/docs/api-reference/chat (requests and answers),
https://platform.openai.com/docs/api-reference/chat-streaming (chunks),
https://platform.openai.com/docs/guides/error-codes (errors).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import orjson

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderContentFilteredError,
    ProviderContextLengthError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    error_class_for_status,
)
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
    ToolCallDelta,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)

_MAX_VENDOR_TEXT = 500

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class Verdict(NamedTuple):
    """What an error means. `retryable` is None where the class's own default holds."""

    kind: type[ProviderError]
    retryable: bool | None = None


UNPAID: Final = Verdict(ProviderRateLimitedError, retryable=False)  # waiting doesn't help: someone has to pay

# Error codes (text) and statuses (numbers) that say more than the status's general meaning.
ERRORS: Final[Mapping[str | int, Verdict]] = {
    402: UNPAID,
    "insufficient_quota": UNPAID,
    "invalid_api_key": Verdict(ProviderAuthError),
    "context_length_exceeded": Verdict(ProviderContextLengthError),
    "content_filter": Verdict(ProviderContentFilteredError),
    "content_policy_violation": Verdict(ProviderContentFilteredError),
}

# Codes that are vague beside a status, and all there is to go by inside a 200.
_INSIDE_200: Final[Mapping[str, Verdict]] = {
    "invalid_request_error": Verdict(ProviderInvalidRequestError),
    "authentication_error": Verdict(ProviderAuthError),
    "rate_limit_exceeded": Verdict(ProviderRateLimitedError),
    "rate_limit_error": Verdict(ProviderRateLimitedError),
    "timeout": Verdict(ProviderTimeoutError),
}

_T = TypeVar("_T")


class ChatCompletionsCodec:
    """The shared part of the codecs. Class attributes name what a vendor calls by another name.

    `end_user` goes out as `end_user_field`; where a vendor has none it is not forwarded and stays in our own ledger.
    A tool call that came without an id gets one by its position ("call_0").
    """

    provider: str
    path: ClassVar[str] = "/chat/completions"
    max_tokens_field: ClassVar[str] = "max_tokens"
    seed_field: ClassVar[str] = "seed"
    end_user_field: ClassVar[str | None] = "user"
    required_choice: ClassVar[str] = "required"
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}
    errors: ClassVar[Mapping[str | int, Verdict]] = ERRORS

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """`options` go over the body, field by field."""
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [self._message(message) for message in request.messages],
        }
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice:
            body["tool_choice"] = self._tool_choice(request.tool_choice)
        fields: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            self.max_tokens_field: request.max_tokens,
            "stop": list(request.stop) or None,
            self.seed_field: request.seed,
        }
        if self.end_user_field:
            fields[self.end_user_field] = request.end_user
        body.update((name, value) for name, value in fields.items() if value is not None)
        if stream:
            body.update(self.stream_fields)
        return EncodedCall(self.path, {**body, **request.options})

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        """None without a key: a server of one's own may ask for none."""
        return {"authorization": f"Bearer {credentials.api_key}"} if credentials.api_key else {}

    def decode(self, payload: Any) -> ProviderCompletion:
        """A plain answer is a stream of one chunk that says `message` where a stream says `delta`."""
        events = ChatCompletionsDecoder(self).response(payload, "message")
        if not payload.get("choices"):
            raise self.malformed("no choices")
        return fold(events)

    def decoder(self) -> ChatCompletionsDecoder:
        return ChatCompletionsDecoder(self)

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        return self._error(payload, status, retry_after)

    def carried_error(self, payload: dict[str, Any]) -> ProviderError | None:
        """The error that an answer or a chunk with status 200 carries."""
        return self.broken_off(payload) if payload.get("error") or payload.get("object") == "error" else None

    def broken_off(self, payload: dict[str, Any]) -> ProviderError:
        """An error without a status: the HTTP answer itself was a 200, so what was produced before may be billed."""
        return self._error(payload, None, None)

    def tool_call_id(self, call_id: str) -> str:
        """The id to send for a call of the history."""
        return call_id

    def content(self, parts: list[Any]) -> Iterable[StreamEvent]:
        """Content that is a list. Raises ProviderBadResponseError: only some vendors send one."""
        raise self.malformed("content is a list")

    def usage(self, payload: dict[str, Any]) -> Usage | None:
        """None where the answer or chunk counts nothing."""
        counts = self.typed(payload, "usage", dict)
        return self.counted(counts) if counts else None

    def counted(self, counts: dict[str, Any]) -> Usage:
        prompt = self.typed(counts, "prompt_tokens_details", dict) or {}
        completion = self.typed(counts, "completion_tokens_details", dict) or {}
        return Usage(
            input_tokens=self.count(counts, "prompt_tokens"),
            output_tokens=self.count(counts, "completion_tokens"),
            cached_input_tokens=self.count(prompt, "cached_tokens"),
            cache_write_tokens=self.count(prompt, "cache_write_tokens"),
            reasoning_tokens=self.count(completion, "reasoning_tokens"),
        )

    def codes(self, error: dict[str, Any]) -> Iterable[Any]:
        """The error's own code fields, the most telling first."""
        return error.get("code"), error.get("type")

    def verdict(self, error: dict[str, Any], status: int | None) -> Verdict:
        """By code, then by status; by a number in the code field where a 200 carries the error."""
        codes = [code for code in self.codes(error) if isinstance(code, str)]
        numbers = (code for code in self.codes(error) if isinstance(code, int) and 400 <= code < 600)
        told = next(numbers, None) if status is None else status
        for code in codes:
            if code in self.errors:
                return self.errors[code]
        if told is not None:
            return self.errors.get(told) or Verdict(error_class_for_status(told))
        return next((_INSIDE_200[code] for code in codes if code in _INSIDE_200), Verdict(ProviderUnavailableError))

    def malformed(self, what: str) -> ProviderBadResponseError:
        return ProviderBadResponseError(f"{self.provider} sent a malformed answer: {what}", provider=self.provider)

    def typed(self, source: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
        """A field that may be absent or null. Raises ProviderBadResponseError where it is of another type."""
        value = source.get(key)
        if value is None or isinstance(value, kind):
            return value
        raise self.malformed(f"{key} is of the wrong type")

    def count(self, counts: dict[str, Any], key: str) -> int:
        value = counts.get(key)
        if value is None:
            return 0
        if not is_count(value):
            raise self.malformed(f"{key} is not a count")
        return value

    def _message(self, message: Message) -> dict[str, Any]:
        wire: dict[str, Any] = {"role": message.role.value, "content": message.content or ""}
        if message.tool_calls:
            wire["content"] = message.content
            wire["tool_calls"] = [
                {
                    "id": self.tool_call_id(call.id),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in message.tool_calls
            ]
        if message.role is Role.TOOL:
            wire["tool_call_id"] = self.tool_call_id(message.tool_call_id or "")
        return wire

    def _tool_choice(self, choice: ToolChoice) -> str | dict[str, Any]:
        if choice.name is not None:
            return {"type": "function", "function": {"name": choice.name}}
        return self.required_choice if choice.mode is ToolChoiceMode.REQUIRED else choice.mode.value

    def _error(self, payload: Any, status: int | None, retry_after: float | None) -> ProviderError:
        """Reads what it can: an odd error is never a reason to fail."""
        body = _object(payload)
        nested = body.get("error")
        error = {"message": nested} if isinstance(nested, str) else _object(nested) or body
        kind, retryable = self.verdict(error, status)
        if kind is ProviderAuthError:
            message = f"{self.provider} refused the API key"  # the vendor's words may quote it
        else:
            message = _text(error)[:_MAX_VENDOR_TEXT] or f"{self.provider} answered with an error"
        codes = (code for code in self.codes(error) if code and isinstance(code, str | int))
        code = min(codes, key=lambda code: isinstance(code, int), default=None)  # a name tells more than a number
        return kind(
            message,
            provider=self.provider,
            status=status,
            vendor_code=None if code is None else str(code),
            retry_after=retry_after,
            retryable=retryable,
        )


class ChatCompletionsDecoder:
    """One stream: JSON chunks, the last of them perhaps with usage alone, then `[DONE]`."""

    __slots__ = ("_calls", "_codec", "_done", "_places")

    def __init__(self, codec: ChatCompletionsCodec) -> None:
        self._codec = codec
        self._done = False
        self._calls = 0
        self._places: dict[int, tuple[int, str | None]] = {}  # the vendor's index → ours and the call's id

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """Raises the ProviderError that an error chunk means, ProviderBadResponseError for malformed data."""
        if event.data == "[DONE]":
            self._done = True
            return ()
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError as error:
            raise self._codec.malformed("a chunk is not JSON") from error
        return self.response(payload, "delta")

    def response(self, payload: Any, key: str) -> list[StreamEvent]:
        """Decode one parsed chunk (`key` "delta") or one whole answer ("message"); the same errors as `feed`."""
        codec = self._codec
        if not isinstance(payload, dict):
            raise codec.malformed("an answer is not an object")
        if (error := codec.carried_error(payload)) is not None:
            raise error
        events: list[StreamEvent] = []
        finish: FinishReason | None = None
        for choice in codec.typed(payload, "choices", list) or ():
            if not isinstance(choice, dict):
                raise codec.malformed("a choice is not an object")
            if choice.get("index"):  # further ones, asked for by an option, have no place in one completion
                continue
            if part := codec.typed(choice, key, dict):
                self._part(part, events)
            if choice.get("finish_reason") is not None:
                finish = self._finish(choice)
        usage = codec.usage(payload)
        if finish or usage:
            events.append(Finished(finish, usage, codec.typed(payload, "model", str) or None))
        return events

    def _part(self, part: dict[str, Any], events: list[StreamEvent]) -> None:
        codec = self._codec
        if reasoning := part.get("reasoning") or part.get("reasoning_content"):
            if not isinstance(reasoning, str):
                raise codec.malformed("reasoning is not text")
            events.append(ReasoningDelta(reasoning))
        if content := part.get("content") or part.get("refusal"):
            if isinstance(content, str):
                events.append(TextDelta(content))
            elif isinstance(content, list):
                events.extend(codec.content(content))
            else:
                raise codec.malformed("content is not text")
        if calls := part.get("tool_calls"):
            if not isinstance(calls, list):
                raise codec.malformed("tool_calls is not a list")
            events.extend(self._call(call, position) for position, call in enumerate(calls))

    def _call(self, call: Any, position: int) -> ToolCallDelta:
        """One fragment. A new id under a known index is a new call: some servers number every call 0."""
        codec = self._codec
        if not isinstance(call, dict):
            raise codec.malformed("a tool call is not an object")
        place = codec.typed(call, "index", int)
        place = position if place is None else place
        call_id = codec.typed(call, "id", str) or None
        function = codec.typed(call, "function", dict) or {}
        name = codec.typed(function, "name", str) or None
        arguments = self._arguments(function.get("arguments") or "")
        index, known = self._places.get(place, (None, None))
        if index is None or (call_id and known and call_id != known):
            index = self._calls
            self._calls += 1
            self._places[place] = (index, call_id)
            return ToolCallDelta(index, call_id or f"call_{index}", name, arguments)
        return ToolCallDelta(index, None, name, arguments)

    def _arguments(self, arguments: Any) -> str:
        """Text, or at some servers the object itself."""
        if isinstance(arguments, str):
            return arguments
        if not isinstance(arguments, dict):
            raise self._codec.malformed("a tool call's arguments are not text")
        try:
            return orjson.dumps(arguments).decode()
        except orjson.JSONEncodeError as error:
            raise self._codec.malformed("a tool call's arguments are nested too deep") from error

    def _finish(self, choice: dict[str, Any]) -> FinishReason:
        """A forced call ends with "stop" at some vendors; the calls tell what it was."""
        reason = self._codec.typed(choice, "finish_reason", str) or ""
        if reason == "error":
            raise self._codec.broken_off(choice)
        finish = _FINISH_REASONS.get(reason, FinishReason.OTHER)
        return FinishReason.TOOL_CALLS if finish is FinishReason.STOP and self._calls else finish


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


def _text(error: dict[str, Any]) -> str:
    """The vendor's words: a text, or a FastAPI list of invalid fields, which may stand in the place of the text."""
    message = error.get("message")
    if isinstance(message, str):
        return message
    detail = _object(message).get("detail") or error.get("detail")
    if isinstance(detail, str):
        return detail
    found = [_object(item) for item in detail] if isinstance(detail, list) else []
    return "; ".join(f"{_where(item.get('loc'))}{item.get('msg')}" for item in found if item.get("msg"))


def _where(location: Any) -> str:
    return ".".join(map(str, location)) + ": " if isinstance(location, list) else ""


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
