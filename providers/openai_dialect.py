"""The chat-completions wire format that many vendors share, sans-IO. A vendor's own file holds what differs.

Sources: https://platform.openai.com/docs/api-reference/chat; see also `openai_request`, `openai_stream` and
`openai_errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderUnavailableError,
    error_class_for_status,
)
from .features import Feature, check_features
from .figures import is_count
from .fold import fold
from .openai_errors import ERRORS, INSIDE_200, Verdict, object_of, text_of
from .openai_request import message_of, response_format_of, tool_of
from .openai_stream import ChatCompletionsDecoder
from .ports import EncodedCall
from .types import (
    Citation,
    CompletionRequest,
    Credentials,
    Message,
    ProviderCompletion,
    ReasoningDelta,
    StreamEvent,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)

_MAX_VENDOR_TEXT = 500

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
    features: ClassVar[frozenset[Feature]] = frozenset({Feature.TOOLS, Feature.SEED})

    def __init__(self, provider: str | None = None) -> None:
        """`provider`: another name, for a server of the operator's that speaks as this vendor does."""
        if provider is not None:
            self.provider = provider

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """`options` go over the body, field by field. Raises UnsupportedFeatureError."""
        check_features(request, self.provider, self.features)
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [self.message(message) for message in request.messages],
        }
        if request.tools:
            body["tools"] = [tool_of(tool) for tool in request.tools]
        if request.tool_choice:
            body["tool_choice"] = self._tool_choice(request.tool_choice)
        fields: dict[str, Any] = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            self.max_tokens_field: request.max_tokens,
            "stop": list(request.stop) or None,
            self.seed_field: request.seed,
            "response_format": None if request.response_format is None else response_format_of(request.response_format),
            **self.reasoning_fields(request),
            **self.logprobs_fields(request),
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
        events = self.decoder().response(payload, "message")
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

    def message(self, message: Message) -> dict[str, Any]:
        """One turn on the wire."""
        return message_of(message, self.tool_call_id)

    def tool_call_id(self, call_id: str) -> str:
        """The id to send for a call of the history."""
        return call_id

    def reasoning_fields(self, request: CompletionRequest) -> Mapping[str, Any]:
        """How the vendor is told to think; a None is left out."""
        return {"reasoning_effort": request.reasoning_effort}

    def logprobs_fields(self, request: CompletionRequest) -> Mapping[str, Any]:
        if request.logprobs is None:
            return {}
        return {"logprobs": True, "top_logprobs": request.logprobs or None}

    def reasoning(self, part: dict[str, Any]) -> Iterable[StreamEvent]:
        """Of a message or a delta. Raises ProviderBadResponseError."""
        text = part.get("reasoning") or part.get("reasoning_content")
        if text and not isinstance(text, str):
            raise self.malformed("reasoning is not text")
        return (ReasoningDelta(text),) if text else ()

    def citation(self, told: dict[str, Any]) -> Citation:
        return Citation(
            url=self.typed(told, "url", str),
            title=self.typed(told, "title", str),
            quote=self.typed(told, "content", str),
            start=self.typed(told, "start_index", int),
            end=self.typed(told, "end_index", int),
        )

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
            input_audio_tokens=self.count(prompt, "audio_tokens"),
            output_audio_tokens=self.count(completion, "audio_tokens"),
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
        return next((INSIDE_200[code] for code in codes if code in INSIDE_200), Verdict(ProviderUnavailableError))

    def malformed(self, what: str) -> ProviderBadResponseError:
        return ProviderBadResponseError(f"{self.provider} sent a malformed answer: {what}", provider=self.provider)

    def typed(self, source: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
        """A field that may be absent or null. Raises ProviderBadResponseError where it is of another type."""
        value = source.get(key)
        if value is None or isinstance(value, kind):
            return value
        raise self.malformed(f"{key} is of the wrong type")

    def objects(self, source: dict[str, Any], key: str) -> Iterable[dict[str, Any]]:
        """A list of objects, which may be absent. Raises ProviderBadResponseError."""
        for each in self.typed(source, key, list) or ():
            if not isinstance(each, dict):
                raise self.malformed(f"{key} holds what is not an object")
            yield each

    def count(self, counts: dict[str, Any], key: str) -> int:
        value = counts.get(key)
        if value is None:
            return 0
        if not is_count(value):
            raise self.malformed(f"{key} is not a count")
        return value

    def _tool_choice(self, choice: ToolChoice) -> str | dict[str, Any]:
        if choice.name is not None:
            return {"type": "function", "function": {"name": choice.name}}
        return self.required_choice if choice.mode is ToolChoiceMode.REQUIRED else choice.mode.value

    def _error(self, payload: Any, status: int | None, retry_after: float | None) -> ProviderError:
        """Reads what it can: an odd error is never a reason to fail."""
        body = object_of(payload)
        nested = body.get("error")
        error = {"message": nested} if isinstance(nested, str) else object_of(nested) or body
        kind, retryable = self.verdict(error, status)
        if kind is ProviderAuthError:
            message = f"{self.provider} refused the API key"  # the vendor's words may quote it
        else:
            message = text_of(error)[:_MAX_VENDOR_TEXT] or f"{self.provider} answered with an error"
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
