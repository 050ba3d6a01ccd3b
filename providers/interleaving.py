"""An answer's parts in the order in which they were written: thinking must go back where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

Block = dict[str, Any]


class Thought(NamedTuple):
    """A block of thinking, and what stood before it: so many characters of text and so many tool calls."""

    written: int
    called: int
    block: Block


def interleaved(
    text: str, calls: Sequence[Block], thoughts: Iterable[Thought], said: Callable[[str], Block]
) -> Iterator[Block]:
    """The blocks of one turn. What stands between two thoughts and is blank is left out: vendors refuse blank texts."""
    written = called = 0
    for thought in thoughts:
        if text[written : thought.written].strip():
            yield said(text[written : thought.written])
            written = thought.written
        yield from calls[called : thought.called]
        called = max(called, thought.called)
        yield thought.block
    if text[written:]:
        yield said(text[written:])
    yield from calls[called:]
