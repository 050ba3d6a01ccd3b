"""Reasoning of the chat-completions dialect that goes back in the next turn: blocks, where the vendor itself has none.

A block's signature is "<provider>:" and what its codec needs to send it back; other vendors' blocks are left out, so
that a conversation can move from one to another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .openai_stream import ChatCompletionsDecoder, Dialect
from .types import Finished, Message, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta


def own_blocks(message: Message, provider: str) -> Iterator[tuple[str, str]]:
    """The text and the rest of the signature of each block that this vendor wrote."""
    prefix = f"{provider}:"
    for block in message.reasoning:
        if block.signature.startswith(prefix):
            yield block.text, block.signature.removeprefix(prefix)


class ClosingDecoder(ChatCompletionsDecoder):
    """Closes a block of reasoning, with `signature`, where the answer goes on with something else or ends."""

    __slots__ = ("_open", "signature")

    def __init__(self, codec: Dialect, signature: str) -> None:
        super().__init__(codec)
        self.signature = signature
        self._open = False

    def response(self, payload: Any, key: str) -> list[StreamEvent]:
        events = super().response(payload, key)
        if self._open:
            return list(self._closed(events))
        for event in events:
            if isinstance(event, ReasoningDelta):
                self.opened(payload, key)
                return list(self._closed(events))
        return events

    def opened(self, payload: dict[str, Any], key: str) -> None:
        """A block begins in this chunk, or whole answer."""

    def _closed(self, events: Iterable[StreamEvent]) -> Iterator[StreamEvent]:
        for event in events:
            if isinstance(event, ReasoningDelta):
                self._open = True
            elif self._open and _goes_on(event):
                self._open = False
                yield ReasoningDelta("", self.signature)
            yield event


def _goes_on(event: StreamEvent) -> bool:
    return isinstance(event, TextDelta | ToolCallDelta) or (isinstance(event, Finished) and bool(event.finish_reason))
