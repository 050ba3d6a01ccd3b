"""Answers of OpenAI's Responses API, whole and streamed.

Sources: https://platform.openai.com/docs/api-reference/responses/object (items, usage, status),
https://platform.openai.com/docs/api-reference/responses-streaming (events).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from .openai_responses_request import signature_of
from .openai_stream import Dialect
from .sse import ServerSentEvent
from .types import (
    Citation,
    Cited,
    Finished,
    FinishReason,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    Weighed,
)

OTHER_TIERS: Final = ("flex", "priority", "scale")
_INCOMPLETE: Final[Mapping[str, FinishReason]] = {
    "max_output_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class ResponsesDecoder:
    """Items open, grow and close; the last event holds the whole response, of which the figures and the end count.

    A whole answer is a stream whose items come closed. Places of citations are told from the beginning of their part,
    and kept from the beginning of the text.
    """

    __slots__ = ("_begun", "_calls", "_codec", "_done", "_refused", "_summarised", "_unwritten", "_written")

    def __init__(self, codec: Dialect) -> None:
        self._codec = codec
        self._done = False
        self._refused = False
        self._calls: dict[int, int] = {}  # the vendor's index of an item → which of the tool calls it is
        self._unwritten: set[int] = set()  # calls whose arguments did not come in pieces
        self._written = self._begun = 0  # characters of text: in all, and when the part opened
        self._summarised = False

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """Raises the ProviderError that a failed response or an error event means. Unknown events are ignored."""
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError as broken:
            raise self._codec.malformed("an event is not JSON") from broken
        if not isinstance(payload, dict):
            raise self._codec.malformed("an event is not an object")
        read = _READERS.get(str(payload.get("type")))
        return () if read is None else read(self, payload)

    def response(self, payload: dict[str, Any]) -> Iterator[StreamEvent]:
        """A whole answer; raises as `feed` does."""
        for index, item in enumerate(self._codec.objects(payload, "output")):
            yield from self._opened(index, item)
            yield from self._whole(item)
            yield from self._closed(index, item)
        yield self._end(payload)

    def _whole(self, item: dict[str, Any]) -> Iterator[StreamEvent]:
        codec = self._codec
        for part in (*codec.objects(item, "summary"), *codec.objects(item, "content")):
            match part.get("type"):
                case "summary_text":
                    yield from self._paragraph()
                    yield from self._reasoning(codec.typed(part, "text", str))
                case "reasoning_text":
                    yield from self._reasoning(codec.typed(part, "text", str))
                case "output_text":
                    self._begun = self._written
                    yield from self._text(codec.typed(part, "text", str), part)
                    yield from self._cited(codec.objects(part, "annotations"))
                case "refusal":
                    yield from self._refusal(codec.typed(part, "refusal", str))

    def _text_grew(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return list(self._text(self._codec.typed(payload, "delta", str), payload))

    def _reasoning_grew(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return self._reasoning(self._codec.typed(payload, "delta", str))

    def _refusal_grew(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return self._refusal(self._codec.typed(payload, "delta", str))

    def _arguments_grew(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        index = self._place(payload)
        fragment = self._codec.typed(payload, "delta", str)
        if index not in self._calls or not fragment:
            return ()
        self._unwritten.discard(index)
        return (ToolCallDelta(self._calls[index], arguments=fragment),)

    def _summary_part_opened(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return self._paragraph()

    def _part_opened(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        self._begun = self._written
        return ()

    def _annotated(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return list(self._cited([self._codec.typed(payload, "annotation", dict) or {}]))

    def _item_opened(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return self._opened(self._place(payload), self._item(payload))

    def _item_closed(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return self._closed(self._place(payload), self._item(payload))

    def _ended(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        return (self._end(self._codec.typed(payload, "response", dict) or {}),)

    def _failed(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        raise self._codec.broken_off({"error": payload})

    def _opened(self, index: int, item: dict[str, Any]) -> Sequence[StreamEvent]:
        codec = self._codec
        self._summarised = False
        if item.get("type") != "function_call":
            return ()
        name, call_id = codec.typed(item, "name", str), codec.typed(item, "call_id", str)
        if not name or not call_id or index in self._calls:
            raise codec.malformed("a function call has no name, no id or no place of its own")
        call = self._calls[index] = len(self._calls)
        self._unwritten.add(index)
        return (ToolCallDelta(call, call_id, name),)

    def _closed(self, index: int, item: dict[str, Any]) -> Sequence[StreamEvent]:
        """Reasoning is whole, and may be sent back, when its item closes."""
        if item.get("type") == "reasoning" and item.get("encrypted_content"):
            place = self._written, len(self._calls)
            try:
                return (ReasoningDelta("", signature_of(self._codec.provider, *place, item)),)
            except orjson.JSONEncodeError as broken:
                raise self._codec.malformed("a reasoning item is nested too deep") from broken
        if index in self._unwritten:
            self._unwritten.remove(index)
            return (ToolCallDelta(self._calls[index], arguments=self._codec.typed(item, "arguments", str) or ""),)
        return ()

    def _text(self, text: str | None, source: dict[str, Any]) -> Iterator[StreamEvent]:
        if text:
            self._written += len(text)
            yield TextDelta(text)
        if tokens := tuple(map(self._token, self._codec.objects(source, "logprobs"))):
            yield Weighed(tokens)

    def _token(self, token: dict[str, Any]) -> TokenLogprob:
        beside = tuple(self._weighed(each) for each in self._codec.objects(token, "top_logprobs"))
        return TokenLogprob(*self._weighed(token), beside)

    def _weighed(self, token: dict[str, Any]) -> tuple[str, float]:
        text, logprob = token.get("token"), token.get("logprob")
        if isinstance(text, str) and isinstance(logprob, int | float):
            return text, float(logprob)
        raise self._codec.malformed("a token's log-probability is not a number")

    def _refusal(self, text: str | None) -> Sequence[StreamEvent]:
        self._refused = True
        self._written += len(text or "")
        return (TextDelta(text),) if text else ()

    def _reasoning(self, text: str | None) -> Sequence[StreamEvent]:
        return (ReasoningDelta(text),) if text else ()

    def _paragraph(self) -> Sequence[StreamEvent]:
        """Each part of a summary but the first stands apart from the one before."""
        first, self._summarised = not self._summarised, True
        return () if first else (ReasoningDelta("\n\n"),)

    def _cited(self, annotations: Any) -> Iterator[StreamEvent]:
        codec = self._codec
        for told in annotations:
            match told.get("type"):
                case "url_citation":
                    places = (codec.typed(told, key, int) for key in ("start_index", "end_index"))
                    start, end = (None if place is None else self._begun + place for place in places)
                    url, title = codec.typed(told, "url", str), codec.typed(told, "title", str)
                    yield Cited(Citation(url, title, None, start, end))
                case "file_citation":
                    index = codec.typed(told, "index", int)
                    end = None if index is None else self._begun + index
                    yield Cited(Citation(title=codec.typed(told, "filename", str), end=end))

    def _end(self, response: dict[str, Any]) -> Finished:
        codec = self._codec
        if response.get("status") == "failed" or response.get("error"):
            raise codec.broken_off({"error": response.get("error")})
        self._done = True
        return Finished(self._finish(response), self._usage(response), codec.typed(response, "model", str) or None)

    def _finish(self, response: dict[str, Any]) -> FinishReason:
        if response.get("status") == "incomplete":
            details = self._codec.typed(response, "incomplete_details", dict) or {}
            return _INCOMPLETE.get(self._codec.typed(details, "reason", str) or "", FinishReason.OTHER)
        if self._refused:
            return FinishReason.CONTENT_FILTER
        return FinishReason.TOOL_CALLS if self._calls else FinishReason.STOP

    def _usage(self, response: dict[str, Any]) -> Usage | None:
        """Searches of the web are billed beside the tokens, as other tiers are billed otherwise."""
        codec = self._codec
        counts = codec.typed(response, "usage", dict)
        if not counts:
            return None
        read = codec.typed(counts, "input_tokens_details", dict) or {}
        wrote = codec.typed(counts, "output_tokens_details", dict) or {}
        tools = codec.typed(response, "tool_usage", dict) or {}
        searches = codec.typed(tools, "web_search", dict) or {}
        return Usage(
            input_tokens=codec.count(counts, "input_tokens"),
            output_tokens=codec.count(counts, "output_tokens"),
            cached_input_tokens=codec.count(read, "cached_tokens"),
            cache_write_tokens=codec.count(read, "cache_write_tokens"),
            reasoning_tokens=codec.count(wrote, "reasoning_tokens"),
            off_table=response.get("service_tier") in OTHER_TIERS or bool(searches.get("num_requests")),
        )

    def _place(self, payload: dict[str, Any]) -> int:
        index = self._codec.typed(payload, "output_index", int)
        if index is None:
            raise self._codec.malformed("an event names no item")
        return index

    def _item(self, payload: dict[str, Any]) -> dict[str, Any]:
        return self._codec.typed(payload, "item", dict) or {}


_READERS: Final[Mapping[str, Callable[[ResponsesDecoder, dict[str, Any]], Sequence[StreamEvent]]]] = {
    "response.output_text.delta": ResponsesDecoder._text_grew,
    "response.function_call_arguments.delta": ResponsesDecoder._arguments_grew,
    "response.reasoning_summary_text.delta": ResponsesDecoder._reasoning_grew,
    "response.reasoning_text.delta": ResponsesDecoder._reasoning_grew,
    "response.refusal.delta": ResponsesDecoder._refusal_grew,
    "response.reasoning_summary_part.added": ResponsesDecoder._summary_part_opened,
    "response.content_part.added": ResponsesDecoder._part_opened,
    "response.output_text.annotation.added": ResponsesDecoder._annotated,
    "response.output_item.added": ResponsesDecoder._item_opened,
    "response.output_item.done": ResponsesDecoder._item_closed,
    "response.completed": ResponsesDecoder._ended,
    "response.incomplete": ResponsesDecoder._ended,
    "response.failed": ResponsesDecoder._ended,
    "error": ResponsesDecoder._failed,
}
