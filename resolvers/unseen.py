"""What a model may have read and written that nobody has seen: it is billed all the same. Estimates, for entries that
say so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from providers.capabilities import FACTS, STREAMS_END, ModelCapability
from providers.fold import Fold
from providers.types import FilePart

from .booking import estimate_tokens
from .bounds import most_input, most_output
from .types import Command, CompleteCommand, EmbedCommand, Target

TOKENS_PER_S = 100
"""Of models whose vendor does not say; about what those of 2025 write."""
GOES_ON_TOKENS = 4_000
"""What is yet to come of an answer that its vendor writes to the end for nobody: few are longer."""


@dataclass(frozen=True, slots=True)
class Sight:
    """How much of an answer could be seen as it was written. `elapsed_ms`: from the call to its end; `thinking_ms`: to
    the first of its answer that is no thought, of which vendors show a summary, or nothing. `held`: its reader stalled,
    so that it waited unread. `left`: our side ended it."""

    streamed: bool
    elapsed_ms: int
    thinking_ms: int
    held: bool
    left: bool


def read_tokens(command: Command, target: Target, input_size: int, *, left: bool) -> int:
    """Where the vendor does not say. `left`: our side ended it; then files count by their size, and where that is not
    known, with what is reserved."""
    expected = estimate_tokens(input_size)
    files = [part.media for part in _files(command)] if left else []
    if not files:
        return expected
    most = most_input(command, input_size, target)
    if any(media.data is None for media in files):
        return most
    return min(most, expected + sum(_file_tokens(media.data or "") for media in files))


def _files(command: Command) -> Iterator[FilePart]:
    if isinstance(command, CompleteCommand):
        for message in command.messages:
            yield from (part for part in message.parts if isinstance(part, FilePart))


def _file_tokens(data: str) -> int:
    """Of base64: a page of text has about as many as it has bytes for."""
    return estimate_tokens(len(data) * 3 // 4)


def written_tokens(command: Command, target: Target, seen: Fold, sight: Sight) -> int:
    """Of an answer that is not whole: what was `seen`, and what may have come to it. Never more than what is reserved,
    unless the vendor says so."""
    if isinstance(command, EmbedCommand):
        return 0
    told = seen.usage.output_tokens if seen.usage else 0
    written = max(told, max(estimate_tokens(seen.produced_bytes), seen.pieces) + _hidden(target, seen, sight))
    if sight.left and seen.finish_reason is None and not (sight.streamed and target.provider in STREAMS_END):
        written += GOES_ON_TOKENS
    most = most_output(command, target)
    return written if most is None else max(told, min(written, most))


def _hidden(target: Target, seen: Fold, sight: Sight) -> int:
    """By the time in which it was written, less what was seen of that."""
    facts = FACTS.get((target.provider, target.model))
    if seen.finish_reason is None and (sight.held or not sight.streamed):
        ms, shown = sight.elapsed_ms, seen.produced_bytes
    elif facts is None or ModelCapability.REASONING in facts.capabilities:
        ms, shown = sight.thinking_ms, seen.thought_bytes
    else:
        return 0
    return max(0, ms * ((facts and facts.tokens_per_s) or TOKENS_PER_S) // 1000 - estimate_tokens(shown))
