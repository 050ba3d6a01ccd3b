"""The Gemini API's wire format (v1beta), sans-IO.

Sources: https://ai.google.dev/api/generate-content (requests, answers, finish reasons, usage),
https://ai.google.dev/api/caching (contents, tools and function calls),
https://ai.google.dev/gemini-api/docs/troubleshooting (errors),
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto (their details).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

import orjson

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderContentFilteredError,
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

_PROVIDER: Final = "google"
_MAX_VENDOR_TEXT = 500

_MODES: Final[Mapping[ToolChoiceMode, str]] = {
    ToolChoiceMode.AUTO: "AUTO",
    ToolChoiceMode.NONE: "NONE",
    ToolChoiceMode.REQUIRED: "ANY",
}

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(
        ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "LANGUAGE"),
        FinishReason.CONTENT_FILTER,
    ),
}

_WITHOUT_SIGNATURES: Final = ("gemini-1", "gemini-2", "gemma")
_NO_SIGNATURE: Final = "skip_thought_signature_validator"  # Google's own word for it

_BAD_KEY = "API_KEY_INVALID"
_ERRORS: Final[Mapping[str, type[ProviderError]]] = {
    _BAD_KEY: ProviderAuthError,  # a reason in the details, not a status: it comes as INVALID_ARGUMENT
    "UNAUTHENTICATED": ProviderAuthError,
    "PERMISSION_DENIED": ProviderAuthError,
    "INVALID_ARGUMENT": ProviderInvalidRequestError,
    "FAILED_PRECONDITION": ProviderInvalidRequestError,
    "NOT_FOUND": ProviderInvalidRequestError,
    "OUT_OF_RANGE": ProviderInvalidRequestError,
    "RESOURCE_EXHAUSTED": ProviderRateLimitedError,
    "INTERNAL": ProviderUnavailableError,
    "UNAVAILABLE": ProviderUnavailableError,
    "DEADLINE_EXCEEDED": ProviderTimeoutError,
}

_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")

_FEATURES = frozenset({Feature.TOOLS, Feature.SEED})
_T = TypeVar("_T")


class GeminiCodec:
    """Google's Gemini models under https://generativelanguage.googleapis.com.

    `end_user` is not forwarded: the API has no field for it, and it stays in our own ledger. Of the thought signatures
    those of tool calls are kept, without which Gemini 3 refuses the next turn; others it does without
    (https://ai.google.dev/gemini-api/docs/thought-signatures). A tool call that came without an id gets one by its
    position ("call_0").
    """

    provider = _PROVIDER

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """Raises UnsendableRequestError for tool arguments that are not a JSON object and for a tool result whose call
        is not in the history.

        `options` go over the body; their `generationConfig` goes over ours key by key.
        """
        check_features(request, _PROVIDER, _FEATURES)
        body: dict[str, Any] = {}
        if system := [{"text": message.content or ""} for message in request.messages if message.role is Role.SYSTEM]:
            body["systemInstruction"] = {"parts": system}
        unsigned = None if request.model.startswith(_WITHOUT_SIGNATURES) else _NO_SIGNATURE
        body["contents"] = _contents(request.messages, unsigned)
        if request.tools:
            body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
        if request.tool_choice:
            body["toolConfig"] = {"functionCallingConfig": _calling_config(request.tool_choice)}
        options = dict(request.options)
        config = _generation_config(request)
        if isinstance(extra := options.get("generationConfig"), Mapping):
            options["generationConfig"] = {**config, **extra}
        if config:
            body["generationConfig"] = config
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return EncodedCall(f"/v1beta/models/{quote(request.model, safe='')}:{method}", {**body, **options})

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return {"x-goog-api-key": credentials.api_key}

    def decode(self, payload: Any) -> ProviderCompletion:
        """A plain answer is a stream of one chunk. Raises ProviderContentFilteredError for a blocked prompt."""
        events = GeminiStreamDecoder().response(payload)
        if not payload.get("candidates"):
            raise _malformed("no candidates")
        return fold(events)

    def decoder(self) -> GeminiStreamDecoder:
        return GeminiStreamDecoder()

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        """By the status name of Google's error model. Without `alt=sse` the stream endpoint sends a list of one."""
        if isinstance(payload, list) and payload:
            payload = payload[0]
        return _error(payload, status=status, retry_after=retry_after)


class GeminiStreamDecoder:
    """Each event is a whole GenerateContentResponse; the one with a finish reason ends the stream. No [DONE] comes.

    Usage comes with every chunk, counted from the start: the last one holds.
    """

    __slots__ = ("_calls", "_done")

    def __init__(self) -> None:
        self._calls = 0
        self._done = False

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """Raises the ProviderError that an error object means, ProviderContentFilteredError for a blocked prompt."""
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError as error:
            raise _malformed("a chunk is not JSON") from error
        return self.response(payload)

    def response(self, payload: Any) -> list[StreamEvent]:
        """Decode one parsed GenerateContentResponse; the same errors as `feed`."""
        if not isinstance(payload, dict):
            raise _malformed("an answer is not an object")
        if "error" in payload:
            # no status: the HTTP answer itself was a 200, so what was produced before may be billed
            raise _error(payload, status=None, retry_after=None)
        candidates = _typed(payload, "candidates", list)
        if not candidates:
            _check_prompt(payload)
        events: list[StreamEvent] = []
        reason = None
        for candidate in candidates or ():
            if not isinstance(candidate, dict):
                raise _malformed("a candidate is not an object")
            if not candidate.get("index"):  # further ones, asked for by an option, have no place in one completion
                reason = self._candidate(candidate, events)
        usage = _usage(payload)
        model = _typed(payload, "modelVersion", str)
        if reason or usage or model:
            events.append(Finished(reason, usage, model))
        return events

    def _candidate(self, candidate: dict[str, Any], events: list[StreamEvent]) -> FinishReason | None:
        content = _typed(candidate, "content", dict)
        for part in (_typed(content, "parts", list) if content else None) or ():
            if not isinstance(part, dict):
                raise _malformed("a part is not an object")
            if text := _typed(part, "text", str):
                events.append(ReasoningDelta(text) if part.get("thought") is True else TextDelta(text))
            elif call := _typed(part, "functionCall", dict):
                events.append(self._call(call, _typed(part, "thoughtSignature", str)))
        reason = _typed(candidate, "finishReason", str)
        if reason is None:
            return None
        self._done = True
        finish = _FINISH_REASONS.get(reason, FinishReason.OTHER)
        return FinishReason.TOOL_CALLS if finish is FinishReason.STOP and self._calls else finish

    def _call(self, call: dict[str, Any], signature: str | None) -> ToolCallDelta:
        index = self._calls
        self._calls += 1
        name = _typed(call, "name", str)
        if not name:
            raise _malformed("a function call has no name")
        try:
            arguments = orjson.dumps(_typed(call, "args", dict) or {}).decode()
        except orjson.JSONEncodeError as error:
            raise _malformed("a function call's arguments are nested too deep") from error
        return ToolCallDelta(index, _typed(call, "id", str) or f"call_{index}", name, arguments, signature)


def _contents(messages: Iterable[Message], unsigned: str | None) -> list[dict[str, Any]]:
    """`unsigned` signs a turn's first call where its history, another vendor's perhaps, has no signature for it."""
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the calls so far; an id used again means the latest call
    results: list[dict[str, Any]] | None = None  # of the turn before, if it was a tool's: its neighbours join it
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        if message.role is Role.TOOL:
            if results is None:
                results = []
                contents.append({"role": "user", "parts": results})
            results.append(_tool_result(message, names))
            continue
        results = None
        names.update((call.id, call.name) for call in message.tool_calls)
        parts: list[dict[str, Any]] = [_call_part(call) for call in message.tool_calls]
        if unsigned and parts:
            parts[0].setdefault("thoughtSignature", unsigned)
        if message.content or not parts:
            parts.insert(0, {"text": message.content or ""})
        contents.append({"role": "model" if message.role is Role.ASSISTANT else "user", "parts": parts})
    return contents


def _call_part(call: ToolCall) -> dict[str, Any]:
    arguments = _json_object(call.arguments)
    if arguments is None:
        raise _unsendable(f"the arguments of tool call {call.id!r} are not a JSON object")
    part = {"functionCall": {"id": call.id, "name": call.name, "args": arguments}}
    return part if call.signature is None else {**part, "thoughtSignature": call.signature}


def _tool_result(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    call_id = message.tool_call_id or ""
    if call_id not in names:
        raise _unsendable(f"no earlier message calls a tool with the id {call_id!r}")
    text = message.content or ""
    response = _json_object(text)
    if response is None:
        response = {"result": text}
    return {"functionResponse": {"id": call_id, "name": names[call_id], "response": response}}


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _declaration(tool: Tool) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        declaration["description"] = tool.description
    if tool.parameters:
        declaration["parametersJsonSchema"] = tool.parameters
    return declaration


def _calling_config(choice: ToolChoice) -> dict[str, Any]:
    if choice.name is not None:
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": _MODES[choice.mode]}


def _generation_config(request: CompletionRequest) -> dict[str, Any]:
    config = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
    }
    return {name: value for name, value in config.items() if value is not None}


def _usage(payload: dict[str, Any]) -> Usage | None:
    """None without a prompt count: early chunks may carry an object with nothing counted yet."""
    counts = _typed(payload, "usageMetadata", dict)
    if not counts or "promptTokenCount" not in counts:
        return None
    reasoning = _count(counts, "thoughtsTokenCount")
    return Usage(
        input_tokens=_count(counts, "promptTokenCount") + _count(counts, "toolUsePromptTokenCount"),
        output_tokens=_count(counts, "candidatesTokenCount") + reasoning,
        cached_input_tokens=_count(counts, "cachedContentTokenCount"),
        reasoning_tokens=reasoning,
    )


def _count(counts: dict[str, Any], key: str) -> int:
    value = counts.get(key)
    if value is None:
        return 0
    if not is_count(value):
        raise _malformed(f"{key} is not a count")
    return value


def _typed(source: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    value = source.get(key)
    if value is None or isinstance(value, kind):
        return value
    raise _malformed(f"{key} is of the wrong type")


def _check_prompt(payload: dict[str, Any]) -> None:
    """Raises ProviderContentFilteredError for a prompt that got no candidates because it was blocked."""
    feedback = _typed(payload, "promptFeedback", dict)
    if feedback and (reason := _typed(feedback, "blockReason", str)):
        raise ProviderContentFilteredError("google blocked the prompt", provider=_PROVIDER, vendor_code=reason)


def _error(payload: Any, *, status: int | None, retry_after: float | None) -> ProviderError:
    """Reads what it can: an odd error is never a reason to fail. `status` is the HTTP answer's, None inside a 200."""
    error = _object(_object(payload).get("error"))
    name, text, number = error.get("status"), error.get("message"), error.get("code")
    listed = error.get("details")
    details = [_object(detail) for detail in listed] if isinstance(listed, list) else []
    if any(detail.get("reason") == _BAD_KEY for detail in details):
        name = _BAD_KEY
    if isinstance(name, str) and name in _ERRORS:
        kind = _ERRORS[name]
    else:
        told = number if status is None else status
        kind = error_class_for_status(told if isinstance(told, int) else 0)
    if kind is ProviderAuthError:
        message = "google refused the credentials"  # the vendor's words may name the key or its project
    elif isinstance(text, str) and text:
        message = text[:_MAX_VENDOR_TEXT]
    else:
        message = "google answered with an error" + (f", status {status}" if status else "")
    return kind(
        message,
        provider=_PROVIDER,
        status=status,
        vendor_code=name if isinstance(name, str) else None,
        retry_after=_retry_delay(details) if retry_after is None else retry_after,
    )


def _retry_delay(details: Iterable[dict[str, Any]]) -> float | None:
    """Seconds of google.rpc.RetryInfo, a Duration in JSON: "36s", "0.5s"."""
    for detail in details:
        delay = detail.get("retryDelay")
        if detail.get("@type") == _RETRY_INFO and isinstance(delay, str) and (match := _DURATION.fullmatch(delay)):
            return float(match[1])
    return None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _malformed(what: str) -> ProviderBadResponseError:
    return ProviderBadResponseError(f"google sent a malformed answer: {what}", provider=_PROVIDER)


def _unsendable(what: str) -> UnsendableRequestError:
    return UnsendableRequestError(what, provider=_PROVIDER)
