"""Between a vendor that writes and a reader that may stall: waiting deltas merge, and past a bound the writer waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from .types import CompletionEvent, ReasoningProduced, TextProduced, ToolCallProduced

MAX_WAITING_CHARACTERS = 256 * 1024


@dataclass(slots=True)
class _Waiting:
    """The newest event, and the texts of the earlier ones of its kind that it has swallowed, its own included."""

    event: CompletionEvent
    texts: list[str] = field(default_factory=list)

    def merged(self) -> CompletionEvent:
        match self.event:
            case _ if len(self.texts) < 2:
                return self.event
            case TextProduced(completion_id, sequence):
                return TextProduced(completion_id, sequence, "".join(self.texts))
            case ReasoningProduced(completion_id, sequence):
                return ReasoningProduced(completion_id, sequence, "".join(self.texts))
            case ToolCallProduced(completion_id, sequence, index, call_id, name):
                return ToolCallProduced(completion_id, sequence, index, call_id, name, "".join(self.texts))
        return self.event


def _continues(earlier: CompletionEvent, later: CompletionEvent) -> bool:
    """Whether `later` is more of the same text, so that the two can travel as one event."""
    if type(earlier) is not type(later):
        return False
    if isinstance(later, ToolCallProduced) and isinstance(earlier, ToolCallProduced):
        return earlier.index == later.index and later.id is None
    return isinstance(later, TextProduced | ReasoningProduced)


def _text(event: CompletionEvent) -> str | None:
    if isinstance(event, TextProduced | ReasoningProduced):
        return event.text
    return event.arguments if isinstance(event, ToolCallProduced) else None


class Mailbox:
    """One writer, one reader. `put` never waits; the writer awaits `room()` before it takes more from the vendor."""

    def __init__(self, max_waiting: int = MAX_WAITING_CHARACTERS) -> None:
        self._max = max_waiting
        self._waiting: list[_Waiting] = []
        self._characters = 0
        self._closed = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def put(self, event: CompletionEvent) -> None:
        text = _text(event)
        self._characters += len(text or "")
        last = self._waiting[-1] if self._waiting else None
        if last is not None and _continues(last.event, event):
            last.texts.append(text or "")
            last.event = self._keep_head(last.event, event)
        else:
            self._waiting.append(_Waiting(event, [] if text is None else [text]))
        _wake(self._reader)

    @staticmethod
    def _keep_head(first: CompletionEvent, later: CompletionEvent) -> CompletionEvent:
        """A tool call's id and name come with its first fragment only: the merged event keeps them."""
        if isinstance(first, ToolCallProduced) and first.id is not None and isinstance(later, ToolCallProduced):
            return ToolCallProduced(
                later.completion_id, later.sequence, first.index, first.id, first.name, later.arguments
            )
        return later

    def close(self) -> None:
        """No more events: the reader ends after what is waiting."""
        self._closed = True
        _wake(self._reader)

    async def room(self) -> None:
        """Returns at once while the reader keeps up; else when it has taken what is waiting."""
        while self._characters > self._max:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    async def events(self) -> AsyncGenerator[CompletionEvent, None]:
        while True:
            while self._waiting:
                waiting, self._waiting, self._characters = self._waiting, [], 0
                _wake(self._writer)
                for item in waiting:
                    yield item.merged()
            if self._closed:
                return
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
