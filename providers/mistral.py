"""Mistral's chat completions.

Sources: https://docs.mistral.ai/api/ (requests, answers, usage), https://docs.mistral.ai/capabilities/reasoning/
(`thinking` in content, `reasoning_effort`, `prompt_mode`), https://docs.mistral.ai/capabilities/function_calling/
(`any`), https://docs.mistral.ai/capabilities/vision/, https://docs.mistral.ai/studio/document-processing/document_qna
(PDFs), https://docs.mistral.ai/capabilities/citations/ (`reference`),
https://github.com/mistralai/mistral-common (tool call ids).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar

from .errors import UnsupportedFeatureError
from .features import Feature
from .openai_embeddings import EmbeddingsCodec
from .openai_reasoning import ClosingDecoder, own_blocks
from .openai_request import address_of
from .types import (
    Citation,
    Cited,
    CompletionRequest,
    FilePart,
    Message,
    ReasoningDelta,
    ReasoningEffort,
    StreamEvent,
    TextDelta,
    Usage,
)

_ID_LENGTH = 9
_ID = re.compile(rf"[a-zA-Z0-9]{{{_ID_LENGTH}}}")
_TWO_DEGREES = ("mistral-small", "mistral-medium")  # these know `none` and `high`


class MistralCodec(EmbeddingsCodec):
    """Under https://api.mistral.ai. A stream tells its usage unasked.

    `end_user` is not forwarded: the API has no field for it, and it refuses fields that it doesn't know. Magistral
    always thinks, in no degrees.
    """

    provider = "mistral"
    path = "/v1/chat/completions"
    seed_field = "random_seed"
    end_user_field = None
    embeddings_path = "/v1/embeddings"
    dimensions_field = "output_dimension"
    embeddings_user_field = None
    required_choice = "any"
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True}
    features = frozenset(
        {
            *(Feature.IMAGE_DATA, Feature.IMAGE_URL, Feature.FILE_DATA, Feature.FILE_URL),
            *(Feature.TOOLS, Feature.SEED, Feature.JSON_OBJECT, Feature.JSON_SCHEMA, Feature.REASONING_EFFORT),
        }
    )

    def decoder(self) -> ClosingDecoder:
        return _Decoder(self, f"{self.provider}:")

    def message(self, message: Message) -> dict[str, Any]:
        """Documents have a part of their own; thinking goes back before the text that it led to."""
        wire = super().message(message)
        for place, part in enumerate(message.parts):
            if isinstance(part, FilePart):
                wire["content"][place] = _document(part)
        thoughts = [_thinking(text) for text, _ in own_blocks(message, self.provider)]
        if thoughts:
            texts = [{"type": "text", "text": message.content}] if message.content else []
            wire["content"] = thoughts + texts
        return wire

    def tool_call_id(self, call_id: str) -> str:
        """Mistral takes ids of nine letters and digits only, so another vendor's become such, always the same."""
        return call_id if _ID.fullmatch(call_id) else sha256(call_id.encode()).hexdigest()[:_ID_LENGTH]

    def reasoning_fields(self, request: CompletionRequest) -> Mapping[str, Any]:
        effort, model = request.reasoning_effort, request.model
        if effort is None:
            return {}
        if model.startswith("magistral"):
            if effort is ReasoningEffort.NONE:
                raise UnsupportedFeatureError("reasoningEffort none", provider=self.provider, model=model)
            return {"prompt_mode": "reasoning"}
        if effort is not ReasoningEffort.NONE and model.startswith(_TWO_DEGREES):
            effort = ReasoningEffort.HIGH
        return {"reasoning_effort": ReasoningEffort.LOW if effort is ReasoningEffort.MINIMAL else effort}

    def content(self, parts: list[Any]) -> Iterable[StreamEvent]:
        """Text, thinking, and references to what tools' results hold: by the names that these gave it."""
        for part in self._objects(parts):
            match part.get("type"):
                case "thinking":
                    thought = "".join(map(self._text, self._objects(self.typed(part, "thinking", list) or [])))
                    if thought:
                        yield ReasoningDelta(thought)
                case "reference":
                    for name in self.typed(part, "reference_ids", list) or ():
                        if not isinstance(name, int | str):
                            raise self.malformed("a reference is neither a number nor a name")
                        yield Cited(Citation(title=str(name)))
                case _ if text := self._text(part):
                    yield TextDelta(text)

    def counted(self, counts: dict[str, Any]) -> Usage:
        """`num_cached_tokens` comes beside the details, or in their place."""
        usage = super().counted(counts)
        cached = usage.cached_input_tokens or self.count(counts, "num_cached_tokens")
        return replace(usage, cached_input_tokens=cached)

    def _objects(self, parts: list[Any]) -> Iterable[dict[str, Any]]:
        for part in parts:
            if not isinstance(part, dict):
                raise self.malformed("a content part is not an object")
            yield part

    def _text(self, part: dict[str, Any]) -> str:
        return (self.typed(part, "text", str) or "") if part.get("type") == "text" else ""


class _Decoder(ClosingDecoder):
    """Knows how much text there is: a reference stands behind the passage that rests on it."""

    __slots__ = ("_length",)

    def __init__(self, codec: MistralCodec, signature: str) -> None:
        super().__init__(codec, signature)
        self._length = 0

    def response(self, payload: Any, key: str) -> list[StreamEvent]:
        events = super().response(payload, key)
        for place, event in enumerate(events):
            if isinstance(event, TextDelta):
                self._length += len(event.text)
            elif isinstance(event, Cited):
                events[place] = Cited(replace(event.citation, end=self._length))
        return events


def _document(part: FilePart) -> dict[str, Any]:
    named = {"document_name": part.media.name} if part.media.name else {}
    return {"type": "document_url", "document_url": address_of(part.media), **named}


def _thinking(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}], "closed": True}
