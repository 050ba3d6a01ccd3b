"""Answers of the chat-completions dialect, whole or in chunks.

Sources: https://platform.openai.com/docs/api-reference/chat/object,
https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

import orjson

from .errors import ProviderBadResponseError, ProviderError
from .sse import ServerSentEvent
from .types import (
    Citation,
    Cited,
    Finished,
    FinishReason,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    Weighed,
)

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}

_T = TypeVar("_T")


class Dialect(Protocol):
    """What a decoder asks of its vendor's codec."""

    provider: str

    def carried_error(self, payload: dict[str, Any]) -> ProviderError | None: ...

    def broken_off(self, payload: dict[str, Any]) -> ProviderError: ...

    def content(self, parts: list[Any]) -> Iterable[StreamEvent]: ...

    def reasoning(self, part: dict[str, Any]) -> Iterable[StreamEvent]: ...

    def citation(self, told: dict[str, Any]) -> Citation: ...

    def usage(self, payload: dict[str, Any]) -> Usage | None: ...

    def malformed(self, what: str) -> ProviderBadResponseError: ...

    def typed(self, source: dict[str, Any], key: str, kind: type[_T]) -> _T | None: ...

    def objects(self, source: dict[str, Any], key: str) -> Iterable[dict[str, Any]]: ...

    def count(self, counts: dict[str, Any], key: str) -> int: ...


class ChatCompletionsDecoder:
    """One stream: JSON chunks, the last of them perhaps with usage alone, then `[DONE]`."""

    __slots__ = ("_calls", "_codec", "_done", "_places", "_refused")

    def __init__(self, codec: Dialect) -> None:
        self._codec = codec
        self._done = False
        self._refused = False
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
            if tokens := self._logprobs(choice):
                events.append(Weighed(tokens))
            if choice.get("finish_reason") is not None:
                finish = self._finish(choice)
        usage = codec.usage(payload)
        if finish or usage:
            events.append(Finished(finish, usage, codec.typed(payload, "model", str) or None))
        return events

    def _part(self, part: dict[str, Any], events: list[StreamEvent]) -> None:
        codec = self._codec
        events.extend(codec.reasoning(part))
        if refusal := codec.typed(part, "refusal", str):
            self._refused = True
            events.append(TextDelta(refusal))
        if content := part.get("content"):
            if isinstance(content, str):
                events.append(TextDelta(content))
            elif isinstance(content, list):
                events.extend(codec.content(content))
            else:
                raise codec.malformed("content is not text")
        events.extend(Cited(citation) for citation in self._citations(part))
        if calls := part.get("tool_calls"):
            if not isinstance(calls, list):
                raise codec.malformed("tool_calls is not a list")
            events.extend(self._call(call, position) for position, call in enumerate(calls))

    def _citations(self, part: dict[str, Any]) -> Iterator[Citation]:
        for annotation in self._codec.objects(part, "annotations"):
            if annotation.get("type") == "url_citation":
                yield self._codec.citation(self._codec.typed(annotation, "url_citation", dict) or {})

    def _logprobs(self, choice: dict[str, Any]) -> tuple[TokenLogprob, ...]:
        codec = self._codec
        found = codec.typed(choice, "logprobs", dict) or {}
        return tuple(
            TokenLogprob(
                *self._weighed(token), tuple(self._weighed(each) for each in codec.objects(token, "top_logprobs"))
            )
            for token in codec.objects(found, "content")
        )

    def _weighed(self, token: dict[str, Any]) -> tuple[str, float]:
        text, logprob = token.get("token"), token.get("logprob")
        if isinstance(text, str) and isinstance(logprob, int | float):
            return text, float(logprob)
        raise self._codec.malformed("a token's log-probability is not a number")

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
        if finish is FinishReason.STOP and self._refused:
            return FinishReason.CONTENT_FILTER
        return FinishReason.TOOL_CALLS if finish is FinishReason.STOP and self._calls else finish
