"""Answers of Anthropic's Messages API, whole and streamed.

Sources: https://platform.claude.com/docs/en/build-with-claude/streaming (events),
https://platform.claude.com/docs/en/api/messages (blocks, usage),
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons,
https://platform.claude.com/docs/en/build-with-claude/citations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from .anthropic_errors import count, error, malformed, required, typed
from .anthropic_models import ClaudeModel, model_of
from .anthropic_request import signature_of
from .sse import ServerSentEvent
from .types import Citation, Cited, Finished, FinishReason, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta, Usage

_OTHER_TIERS: Final = ("priority", "batch")

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}


class AnthropicStreamDecoder:
    """message_start, the content blocks one after the other, message_delta, message_stop.

    The input's figures come first, so a stream that is cut off still knows them; the output's come with message_delta.
    """

    __slots__ = (
        "_begun",
        "_calls",
        "_citations",
        "_done",
        "_figures",
        "_model",
        "_signature",
        "_unwritten",
        "_written",
    )

    def __init__(self, model: str = "") -> None:
        self._model: ClaudeModel = model_of(model)
        self._calls: dict[int, int] = {}  # content block → which of the tool calls it is
        self._unwritten: dict[int, str] = {}  # content block → the arguments that hold if no fragment comes
        self._written = self._begun = 0  # characters of text: in all, and when the block opened
        self._signature: tuple[str, str] | None = None  # of the open block of thinking: its kind, and the secret
        self._citations: list[Citation] = []  # of the open block of text
        self._figures: dict[str, Any] = {}
        self._done = False

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """Raises the ProviderError that an error event means. Events of unknown types are ignored, as the API asks."""
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError as broken:
            raise malformed("an event is not JSON") from broken
        if not isinstance(payload, dict):
            raise malformed("an event is not an object")
        kind = payload.get("type")
        if kind == "content_block_delta":
            return self._delta(payload)
        if kind == "content_block_start":
            return self.start(required(payload, "index", int), payload.get("content_block"))
        if kind == "content_block_stop":
            return self.stop(required(payload, "index", int))
        if kind == "message_start":
            return self._message_start(required(payload, "message", dict))
        if kind == "message_delta":
            return self._message_delta(payload)
        if kind == "message_stop":
            self._done = True
        elif kind == "error":
            # no status: the HTTP answer itself was a 200, so what was produced before may be billed
            raise error(payload, status=None, retry_after=None)
        return ()

    def start(self, index: int, block: Any) -> Sequence[StreamEvent]:
        """A content block opens, with what it already holds. Raises ProviderBadResponseError."""
        if not isinstance(block, dict):
            raise malformed("a content block is not an object")
        match block.get("type"):
            case "text":
                self._begun = self._written
                for citation in typed(block, "citations", list) or ():
                    self._cite(citation)
                return self._text(block)
            case "thinking":
                self._sign(block)
                return _thinking(block)
            case "redacted_thinking":
                self._signature = "redacted_thinking", required(block, "data", str)
            case "tool_use":
                return self._call(index, block)
        return ()

    def stop(self, index: int) -> Sequence[StreamEvent]:
        """A content block closes. A tool without parameters is called without a fragment of input."""
        if (arguments := self._unwritten.pop(index, None)) is not None:
            return (ToolCallDelta(self._calls[index], arguments=arguments),)
        if self._signature is not None:
            signature = signature_of(self._model, self._written, len(self._calls), *self._signature)
            self._signature = None
            return (ReasoningDelta("", signature),)
        if self._citations:
            place, citations = (self._begun, self._written), self._citations
            self._citations = []
            return [Cited(Citation(each.url, each.title, each.quote, *place)) for each in citations]
        return ()

    def _call(self, index: int, block: dict[str, Any]) -> Sequence[StreamEvent]:
        if index in self._calls:
            raise malformed("two content blocks have the same index")
        call = self._calls[index] = len(self._calls)
        try:
            self._unwritten[index] = orjson.dumps(required(block, "input", dict)).decode()
        except orjson.JSONEncodeError as broken:
            raise malformed("a tool call's input is nested too deep") from broken
        return (ToolCallDelta(call, required(block, "id", str), required(block, "name", str)),)

    def _delta(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        delta = required(payload, "delta", dict)
        kind = delta.get("type")
        if kind == "text_delta":
            return self._text(delta)
        if kind == "thinking_delta":
            return _thinking(delta)
        if kind == "signature_delta":
            self._sign(delta)
        elif kind == "citations_delta":
            self._cite(delta.get("citation"))
        elif kind == "input_json_delta":
            return self._fragment(required(payload, "index", int), required(delta, "partial_json", str))
        return ()

    def _fragment(self, index: int, fragment: str) -> Sequence[StreamEvent]:
        call = self._calls.get(index)
        if call is None or not fragment:  # a server's own tool has fragments too
            return ()
        self._unwritten.pop(index, None)
        return (ToolCallDelta(call, arguments=fragment),)

    def _text(self, source: dict[str, Any]) -> Sequence[StreamEvent]:
        text = required(source, "text", str)
        self._written += len(text)
        return (TextDelta(text),) if text else ()

    def _sign(self, source: dict[str, Any]) -> None:
        """In a stream a block opens with an empty signature, and its own comes last."""
        if signature := typed(source, "signature", str):
            self._signature = "thinking", signature

    def _cite(self, citation: Any) -> None:
        """Of documents, search results and the web; what a kind does not have stays None."""
        if not isinstance(citation, dict):
            raise malformed("a citation is not an object")
        url = typed(citation, "url", str) or typed(citation, "source", str)
        title = typed(citation, "title", str) or typed(citation, "document_title", str)
        self._citations.append(Citation(url, title, typed(citation, "cited_text", str)))

    def _message_start(self, message: dict[str, Any]) -> Sequence[StreamEvent]:
        self._figures = dict(required(message, "usage", dict))
        model = typed(message, "model", str)
        self._model = model_of(model or "")
        return (Finished(usage=usage_of(self._figures), model=model),)

    def _message_delta(self, payload: dict[str, Any]) -> Sequence[StreamEvent]:
        self._figures.pop("output_tokens", None)  # at the start it counted the first token alone
        figures = required(payload, "usage", dict)
        self._figures.update((key, value) for key, value in figures.items() if value is not None)
        return (Finished(finish_reason_of(required(payload, "delta", dict)), usage_of(self._figures)),)


def finish_reason_of(source: dict[str, Any]) -> FinishReason | None:
    reason = typed(source, "stop_reason", str)
    return None if reason is None else _FINISH_REASONS.get(reason, FinishReason.OTHER)


def usage_of(figures: dict[str, Any]) -> Usage:
    """The vendor's `input_tokens` leave the cache's out; ours is the sum. Thinking is part of the output.

    The price table has the standard tier's prices, with writes to the five-minute cache
    (https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing); web searches are billed beside the
    tokens, and fast mode has prices of its own.
    """
    cached = count(figures, "cache_read_input_tokens", 0)
    written = count(figures, "cache_creation_input_tokens", 0)
    details = typed(figures, "output_tokens_details", dict)
    lifetimes = typed(figures, "cache_creation", dict) or {}
    tools = typed(figures, "server_tool_use", dict) or {}
    return Usage(
        input_tokens=count(figures, "input_tokens") + cached + written,
        output_tokens=count(figures, "output_tokens"),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=count(details, "thinking_tokens", 0) if details else 0,
        off_table=bool(lifetimes.get("ephemeral_1h_input_tokens"))
        or figures.get("service_tier") in _OTHER_TIERS
        or figures.get("speed") == "fast"
        or bool(tools.get("web_search_requests")),
    )


def _thinking(source: dict[str, Any]) -> Sequence[StreamEvent]:
    text = required(source, "thinking", str)
    return (ReasoningDelta(text),) if text else ()
