"""Reads `tests/transcripts`: what its README describes, as the project's own types."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from providers.types import (
    Citation,
    CompletionRequest,
    FilePart,
    FinishReason,
    ImagePart,
    Media,
    Message,
    Part,
    ProviderCompletion,
    ReasoningBlock,
    ReasoningEffort,
    ResponseFormat,
    Role,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    Usage,
)

ROOT = Path(__file__).parent.parent / "transcripts"


@dataclass(frozen=True)
class Transcript:
    provider: str
    scenario: str

    def __str__(self) -> str:
        return f"{self.provider}-{self.scenario}"

    @property
    def folder(self) -> Path:
        return ROOT / self.provider / self.scenario

    def _json(self, name: str) -> Any:
        return orjson.loads((self.folder / name).read_bytes())

    @cached_property
    def call(self) -> CompletionRequest:
        return read_call(self._json("call.json"))

    @cached_property
    def request(self) -> dict[str, Any]:
        return self._json("request.json")

    @cached_property
    def response(self) -> dict[str, Any]:
        return self._json("response.json")

    @cached_property
    def expected(self) -> dict[str, Any]:
        return self._json("expect.json")

    @property
    def streamed(self) -> bool:
        return (self.folder / "response.sse").exists()

    @property
    def events(self) -> bytes:
        return (self.folder / "response.sse").read_bytes()

    @property
    def succeeds(self) -> bool:
        return "error" not in self.expected

    @property
    def completion(self) -> ProviderCompletion:
        return read_completion(self.expected)


def transcripts() -> list[Transcript]:
    return [Transcript(file.parent.parent.name, file.parent.name) for file in sorted(ROOT.glob("*/*/call.json"))]


def vendors() -> list[str]:
    return sorted(folder.name for folder in ROOT.iterdir() if folder.is_dir())


def read_call(data: dict[str, Any]) -> CompletionRequest:
    fields = dict(data)
    fields["messages"] = tuple(_message(each) for each in data["messages"])
    fields["tools"] = tuple(Tool(**each) for each in data.get("tools", ()))
    fields["stop"] = tuple(data.get("stop", ()))
    if choice := data.get("tool_choice"):
        fields["tool_choice"] = ToolChoice(ToolChoiceMode(choice["mode"]), choice.get("name"))
    if "response_format" in data:
        fields["response_format"] = ResponseFormat(**data["response_format"])
    if effort := data.get("reasoning_effort"):
        fields["reasoning_effort"] = ReasoningEffort(effort)
    return CompletionRequest(**fields)


def _message(data: dict[str, Any]) -> Message:
    fields = dict(data) | {"role": Role(data["role"])}
    fields["tool_calls"] = tuple(ToolCall(**each) for each in data.get("tool_calls", ()))
    fields["parts"] = tuple(_part(each) for each in data.get("parts", ()))
    fields["reasoning"] = tuple(ReasoningBlock(**each) for each in data.get("reasoning", ()))
    return Message(**fields)


def _part(data: dict[str, Any]) -> Part:
    if "image" in data:
        return ImagePart(Media(**data["image"]))
    if "file" in data:
        return FilePart(Media(**data["file"]), data.get("cite", False))
    return TextPart(data["text"])


def read_completion(data: dict[str, Any]) -> ProviderCompletion:
    fields = dict(data)
    fields["tool_calls"] = tuple(ToolCall(**each) for each in data.get("tool_calls", ()))
    fields["reasoning_blocks"] = tuple(ReasoningBlock(**each) for each in data.get("reasoning_blocks", ()))
    fields["citations"] = tuple(Citation(**each) for each in data.get("citations", ()))
    fields["logprobs"] = tuple(_logprob(each) for each in data.get("logprobs", ()))
    if reason := data.get("finish_reason"):
        fields["finish_reason"] = FinishReason(reason)
    if usage := data.get("usage"):
        cost = usage.get("cost")
        fields["usage"] = Usage(**(usage | {"cost": None if cost is None else Decimal(str(cost))}))
    return ProviderCompletion(**fields)


def _logprob(data: dict[str, Any]) -> TokenLogprob:
    return TokenLogprob(data["token"], data["logprob"], tuple((*each,) for each in data.get("likeliest", ())))
