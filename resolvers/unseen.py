"""What a model may have written that nobody has seen: it is billed all the same. Estimates, for entries that say so."""

from __future__ import annotations

from providers.capabilities import FACTS, STREAMS_GO_ON, ModelCapability
from providers.fold import Fold

from .booking import estimate_tokens
from .bounds import most_output
from .types import Command, EmbedCommand, Target

TOKENS_PER_S = 100
"""Of models whose vendor does not say; about what those of 2025 write."""
GOES_ON_TOKENS = 4_000
"""What is yet to come of an answer that its vendor writes to the end for nobody: few are longer."""


def unseen_tokens(command: Command, target: Target, seen: Fold, *, streamed: bool, silent_ms: int, left: bool) -> int:
    """Of output, besides what was `seen`; together never more than what is reserved. `silent_ms`: from the call to the
    first that was seen of its answer, or to its end. `left`: our side ended it."""
    if isinstance(command, EmbedCommand):
        return 0
    facts = FACTS.get((target.provider, target.model))
    tokens = 0
    if not streamed or facts is None or ModelCapability.REASONING in facts.capabilities:
        tokens += silent_ms * ((facts and facts.tokens_per_s) or TOKENS_PER_S) // 1000
    if left and seen.finish_reason is None and not (streamed and target.provider not in STREAMS_GO_ON):
        tokens += GOES_ON_TOKENS
    most = most_output(command, target)
    return tokens if most is None else min(tokens, max(0, most - estimate_tokens(seen.produced_bytes)))
