"""Stream events → completion. The one fold that every vendor's stream passes through."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .types import (
    Citation,
    Cited,
    Finished,
    FinishReason,
    ProviderCompletion,
    ReasoningBlock,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
    Weighed,
)

_MANY = 1024


def _append(pieces: list[str], piece: str) -> None:
    """Joins the pieces now and then: a short string of its own takes ten times its characters."""
    pieces.append(piece)
    if len(pieces) >= _MANY:
        pieces[:] = ["".join(pieces)]


@dataclass(slots=True)
class _PartialToolCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    signature: str | None = None


@dataclass(slots=True)
class Fold:
    """Accumulates one stream. `completion()` may be asked at any moment: a cut stream folds to what was produced.
    `pieces`: in how many the model's text came, none of which is less than a token."""

    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _unsigned: list[str] = field(default_factory=list)
    _blocks: list[ReasoningBlock] = field(default_factory=list)
    _citations: list[Citation] = field(default_factory=list)
    _logprobs: list[TokenLogprob] = field(default_factory=list)
    _tools: dict[int, _PartialToolCall] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    model: str | None = None
    pieces: int = 0

    def add(self, event: StreamEvent) -> None:
        match event:
            case TextDelta(text):
                _append(self._text, text)
                self.pieces += bool(text)
            case ReasoningDelta(text, signature):
                self._add_reasoning(text, signature)
            case ToolCallDelta(index):
                self._add_tool(index, event)
            case Finished(finish_reason, usage, model):
                self.finish_reason = finish_reason or self.finish_reason
                self.usage = usage or self.usage
                self.model = model or self.model
            case Cited(citation):
                self._citations.append(citation)
            case Weighed(tokens):
                self._logprobs.extend(tokens)

    def _add_reasoning(self, text: str, signature: str | None) -> None:
        if text:
            self.pieces += 1
            _append(self._reasoning, text)
            _append(self._unsigned, text)
        if signature is not None:
            self._blocks.append(ReasoningBlock("".join(self._unsigned), signature))
            self._unsigned.clear()

    def _add_tool(self, index: int, delta: ToolCallDelta) -> None:
        call = self._tools.setdefault(index, _PartialToolCall())
        call.id = call.id or delta.id or ""
        call.name = call.name or delta.name or ""
        call.signature = call.signature or delta.signature
        _append(call.arguments, delta.arguments)
        self.pieces += bool(delta.arguments)

    def completion(self) -> ProviderCompletion:
        return ProviderCompletion(
            content="".join(self._text) if self._text else None,
            reasoning="".join(self._reasoning) if self._reasoning else None,
            reasoning_blocks=tuple(self._blocks),
            tool_calls=tuple(
                ToolCall(call.id, call.name, "".join(call.arguments), call.signature)
                for _, call in sorted(self._tools.items())
            ),
            citations=tuple(self._citations),
            logprobs=tuple(self._logprobs),
            finish_reason=self.finish_reason,
            usage=self.usage,
            model=self.model,
        )

    @property
    def produced_bytes(self) -> int:
        """UTF-8 bytes of everything the model has written so far: what an estimate of its tokens rests on."""
        tools = (piece for call in self._tools.values() for piece in (call.name, *call.arguments))
        return _bytes(self._text) + _bytes(tools) + self.thought_bytes

    @property
    def thought_bytes(self) -> int:
        """Those of its thoughts, or of what the vendor shows of them."""
        return _bytes(self._reasoning)


def _bytes(pieces: Iterable[str]) -> int:
    return sum(len(piece.encode()) for piece in pieces)


def fold(events: Iterable[StreamEvent]) -> ProviderCompletion:
    accumulator = Fold()
    for event in events:
        accumulator.add(event)
    return accumulator.completion()
