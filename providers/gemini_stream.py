"""Answers of the Gemini API, whole and streamed.

Sources: https://ai.google.dev/api/generate-content (candidates, finish reasons, grounding, log-probabilities, usage),
https://ai.google.dev/gemini-api/docs/google-search (grounding), https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from .errors import ProviderContentFilteredError
from .gemini_errors import PROVIDER, count, error, malformed, objects, typed
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

_FINISH_REASONS: Final[Mapping[str, FinishReason]] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "ESCALATION"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
        ),
        FinishReason.CONTENT_FILTER,
    ),
}
_SOURCES: Final = ("web", "retrievedContext", "maps")


class GeminiStreamDecoder:
    """Each event is a whole GenerateContentResponse; the one with a finish reason ends the stream. No [DONE] comes.

    Usage comes with every chunk, counted from the start: the last one holds. Places in the text are told in bytes, so
    the bytes are kept.
    """

    __slots__ = ("_calls", "_done", "_utf8")

    def __init__(self) -> None:
        self._calls = 0
        self._done = False
        self._utf8 = bytearray()

    @property
    def done(self) -> bool:
        return self._done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        """Raises the ProviderError that an error object means, ProviderContentFilteredError for a blocked prompt."""
        try:
            payload = orjson.loads(event.data)
        except orjson.JSONDecodeError as broken:
            raise malformed("a chunk is not JSON") from broken
        return self.response(payload)

    def response(self, payload: Any) -> list[StreamEvent]:
        """Decode one parsed GenerateContentResponse; the same errors as `feed`."""
        if not isinstance(payload, dict):
            raise malformed("an answer is not an object")
        if "error" in payload:
            # no status: the HTTP answer itself was a 200, so what was produced before may be billed
            raise error(payload, status=None, retry_after=None)
        candidates = typed(payload, "candidates", list)
        if not candidates:
            _check_prompt(payload)
        events: list[StreamEvent] = []
        reason = None
        for candidate in candidates or ():
            if not isinstance(candidate, dict):
                raise malformed("a candidate is not an object")
            if not candidate.get("index"):  # further ones, asked for by an option, have no place in one completion
                reason = self._candidate(candidate, events)
        usage = _usage(payload)
        model = typed(payload, "modelVersion", str)
        if reason or usage or model:
            events.append(Finished(reason, usage, model))
        return events

    def _candidate(self, candidate: dict[str, Any], events: list[StreamEvent]) -> FinishReason | None:
        content = typed(candidate, "content", dict)
        for part in objects(content, "parts") if content else ():
            self._part(part, events)
        if weighed := typed(candidate, "logprobsResult", dict):
            events.append(Weighed(tuple(_logprobs(weighed))))
        if grounding := typed(candidate, "groundingMetadata", dict):
            events.extend(map(Cited, self._grounding(grounding)))
        if cited := typed(candidate, "citationMetadata", dict):
            events.extend(Cited(self._cited(source)) for source in objects(cited, "citationSources"))
        reason = typed(candidate, "finishReason", str)
        if reason is None:
            return None
        self._done = True
        finish = _FINISH_REASONS.get(reason, FinishReason.OTHER)
        return FinishReason.TOOL_CALLS if finish is FinishReason.STOP and self._calls else finish

    def _part(self, part: dict[str, Any], events: list[StreamEvent]) -> None:
        """A signature belongs to the call, or to the text and what was thought before it, that its part holds."""
        text, signature = typed(part, "text", str), typed(part, "thoughtSignature", str)
        if not text and (call := typed(part, "functionCall", dict)):
            events.append(self._call(call, signature))
            return
        if text and part.get("thought") is True:
            events.append(ReasoningDelta(text))
        elif text:
            self._utf8 += text.encode()
            events.append(TextDelta(text))
        if signature:
            events.append(ReasoningDelta("", f"{PROVIDER}:{signature}"))

    def _call(self, call: dict[str, Any], signature: str | None) -> ToolCallDelta:
        index = self._calls
        self._calls += 1
        name = typed(call, "name", str)
        if not name:
            raise malformed("a function call has no name")
        try:
            arguments = orjson.dumps(typed(call, "args", dict) or {}).decode()
        except orjson.JSONEncodeError as broken:
            raise malformed("a function call's arguments are nested too deep") from broken
        return ToolCallDelta(index, typed(call, "id", str) or f"call_{index}", name, arguments, signature)

    def _grounding(self, grounding: dict[str, Any]) -> Iterator[Citation]:
        """Each passage with each of its sources; sources that no passage names stand for the whole answer."""
        sources = [_source(chunk) for chunk in objects(grounding, "groundingChunks")]
        supports = objects(grounding, "groundingSupports")
        for support in supports:
            segment = typed(support, "segment", dict) or {}
            start, end = self._place(segment, "startIndex"), self._place(segment, "endIndex")
            for index in typed(support, "groundingChunkIndices", list) or ():
                if not isinstance(index, int) or not 0 <= index < len(sources):
                    raise malformed("a passage names a source that is not there")
                source = sources[index]
                yield Citation(source.url, source.title, source.quote, start, end)
        if not supports:
            yield from sources

    def _cited(self, source: dict[str, Any]) -> Citation:
        start, end = self._place(source, "startIndex"), self._place(source, "endIndex")
        return Citation(typed(source, "uri", str), typed(source, "title", str), None, start, end)

    def _place(self, source: dict[str, Any], key: str) -> int:
        """In characters; the vendor leaves a zero out."""
        return len(self._utf8[: count(source, key)].decode(errors="ignore"))


def _source(chunk: dict[str, Any]) -> Citation:
    for kind in _SOURCES:
        if found := typed(chunk, kind, dict):
            return Citation(typed(found, "uri", str), typed(found, "title", str), typed(found, "text", str))
    return Citation()


def _logprobs(weighed: dict[str, Any]) -> Iterator[TokenLogprob]:
    likeliest = objects(weighed, "topCandidates")
    for place, chosen in enumerate(objects(weighed, "chosenCandidates")):
        beside = objects(likeliest[place], "candidates") if place < len(likeliest) else []
        yield TokenLogprob(*_weight(chosen), tuple(map(_weight, beside)))


def _weight(candidate: dict[str, Any]) -> tuple[str, float]:
    token, weight = typed(candidate, "token", str), candidate.get("logProbability", 0)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise malformed("logProbability is not a number")
    return token or "", float(weight)


def _usage(payload: dict[str, Any]) -> Usage | None:
    """None without a prompt count: early chunks may carry an object with nothing counted yet."""
    counts = typed(payload, "usageMetadata", dict)
    if not counts or "promptTokenCount" not in counts:
        return None
    reasoning = count(counts, "thoughtsTokenCount")
    return Usage(
        input_tokens=count(counts, "promptTokenCount") + count(counts, "toolUsePromptTokenCount"),
        output_tokens=count(counts, "candidatesTokenCount") + reasoning,
        cached_input_tokens=count(counts, "cachedContentTokenCount"),
        reasoning_tokens=reasoning,
        input_audio_tokens=_of(counts, "promptTokensDetails", "AUDIO"),
        cached_audio_tokens=_of(counts, "cacheTokensDetails", "AUDIO"),
        output_audio_tokens=_of(counts, "candidatesTokensDetails", "AUDIO"),
        input_image_tokens=_of(counts, "promptTokensDetails", "IMAGE") - _of(counts, "cacheTokensDetails", "IMAGE"),
        output_image_tokens=_of(counts, "candidatesTokensDetails", "IMAGE"),
    )


def _of(counts: dict[str, Any], key: str, modality: str) -> int:
    return sum(count(each, "tokenCount") for each in objects(counts, key) if each.get("modality") == modality)


def _check_prompt(payload: dict[str, Any]) -> None:
    """Raises ProviderContentFilteredError for a prompt that got no candidates because it was blocked."""
    feedback = typed(payload, "promptFeedback", dict)
    if feedback and (reason := typed(feedback, "blockReason", str)):
        raise ProviderContentFilteredError("google blocked the prompt", provider=PROVIDER, vendor_code=reason)
