"""Between a vendor that writes and a reader that may stall: waiting deltas merge, and past a bound the writer waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from .types import CompletionEvent, ReasoningProduced, TextProduced, ToolCallProduced

MAX_WAITING_CHARACTERS = 16 * 1024
EVENT_WEIGHT = 128  # characters that an event counts for beside its text: a flood of empty ones is bounded too


@dataclass(slots=True)
class _Waiting:
    """The newest event, and the texts of the earlier ones of its kind that it has swallowed, its own included."""

    event: CompletionEvent
    texts: list[str]
    size: int
    swallowed: bool = False

    def swallow(self, later: CompletionEvent, text: str) -> None:
        """What comes with a tool call's first fragment, the merged event keeps."""
        earlier = self.event
        self.swallowed = True
        if isinstance(earlier, ToolCallProduced) and isinstance(later, ToolCallProduced):
            later = replace(
                later,
                id=earlier.id or later.id,
                name=earlier.name or later.name,
                signature=earlier.signature or later.signature,
            )
        self.event = later
        if text:
            self.texts.append(text)

    def merged(self) -> CompletionEvent:
        if not self.swallowed:
            return self.event
        match self.event:
            case TextProduced() | ReasoningProduced() as event:
                return replace(event, text="".join(self.texts))
            case ToolCallProduced() as event:
                return replace(event, arguments="".join(self.texts))
            case event:
                return event


def _continues(earlier: CompletionEvent, later: CompletionEvent) -> bool:
    """Whether `later` is more of the same text, so that the two can travel as one event."""
    if isinstance(earlier, ToolCallProduced) and isinstance(later, ToolCallProduced):
        return earlier.index == later.index and (not later.id or later.id == earlier.id)
    if isinstance(earlier, ReasoningProduced) and earlier.signature is not None:
        return False  # its block is closed
    return type(earlier) is type(later) and isinstance(later, TextProduced | ReasoningProduced)


def _text(event: CompletionEvent) -> str:
    match event:
        case TextProduced() | ReasoningProduced():
            return event.text
        case ToolCallProduced():
            return event.arguments
        case _:
            return ""


def _head_size(event: CompletionEvent) -> int:
    if not isinstance(event, ToolCallProduced):
        return EVENT_WEIGHT
    return EVENT_WEIGHT + sum(len(part or "") for part in (event.id, event.name, event.signature))


class Mailbox:
    """One writer, one reader. `put` never waits; the writer awaits `room()` before it takes more from the vendor."""

    def __init__(self, max_waiting: int = MAX_WAITING_CHARACTERS) -> None:
        self._max = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._size = 0
        self._closed = False
        self._abandoned = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def put(self, event: CompletionEvent) -> None:
        if self._abandoned:
            return
        text = _text(event)
        last = self._waiting[-1] if self._waiting else None
        if last is None or not _continues(last.event, event):
            last = _Waiting(event, [text], _head_size(event))
            self._waiting.append(last)
            self._size += last.size
        else:
            last.swallow(event, text)
        size = len(text) + len(event.signature or "" if isinstance(event, ReasoningProduced) else "")
        last.size += size
        self._size += size
        _wake(self._reader)

    def close(self) -> None:
        """No more events: the reader ends after what is waiting."""
        self._closed = True
        _wake(self._reader)

    def abandon(self) -> None:
        """The reader is gone: nothing is kept for it, and the writer has room."""
        self._abandoned = True
        self._waiting.clear()
        self._size = 0
        _wake(self._writer)

    @property
    def full(self) -> bool:
        return self._size > self._max

    async def room(self) -> None:
        """Returns at once while the reader keeps up; else when it has taken enough of what is waiting."""
        while self.full:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer

    async def events(self) -> AsyncGenerator[CompletionEvent, None]:
        while True:
            while self._waiting:
                taken = self._waiting.popleft()
                self._size -= taken.size
                _wake(self._writer)
                yield taken.merged()
            if self._closed:
                return
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
