"""Mistral's chat completions.

Sources: https://docs.mistral.ai/api/ (requests, answers, usage), https://docs.mistral.ai/capabilities/reasoning/
(`thinking` in content), https://docs.mistral.ai/capabilities/function_calling/ (`any`),
https://github.com/mistralai/mistral-common (tool call ids).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, ClassVar

from .openai_dialect import ChatCompletionsCodec
from .types import ReasoningDelta, StreamEvent, TextDelta, Usage

_ID_LENGTH = 9
_ID = re.compile(rf"[a-zA-Z0-9]{{{_ID_LENGTH}}}")


class MistralCodec(ChatCompletionsCodec):
    """Under https://api.mistral.ai. A stream tells its usage unasked.

    `end_user` is not forwarded: the API has no field for it, and it refuses fields that it doesn't know.
    """

    provider = "mistral"
    path = "/v1/chat/completions"
    seed_field = "random_seed"
    end_user_field = None
    required_choice = "any"
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True}

    def tool_call_id(self, call_id: str) -> str:
        """Mistral takes ids of nine letters and digits only, so another vendor's become such, always the same."""
        return call_id if _ID.fullmatch(call_id) else sha256(call_id.encode()).hexdigest()[:_ID_LENGTH]

    def content(self, parts: list[Any]) -> Iterable[StreamEvent]:
        """Text and thinking; other kinds (references) have no place in a completion."""
        for part in self._objects(parts):
            if part.get("type") == "thinking":
                thought = "".join(map(self._text, self._objects(self.typed(part, "thinking", list) or [])))
                if thought:
                    yield ReasoningDelta(thought)
            elif text := self._text(part):
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
