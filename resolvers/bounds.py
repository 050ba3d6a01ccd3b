"""The most that a call can come to, known before it is made: what is reserved for it."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import orjson

from providers.capabilities import FACTS
from providers.prices import context_window, cost_of
from providers.types import TextPart, Usage

from .price_book import UNKNOWN_RULES, PriceBook
from .types import Command, CompleteCommand, EmbedCommand, Target

CALL_TOKENS = 64
MESSAGE_TOKENS = 16
TOOLS_TOKENS = 1_000
TOOL_TOKENS = 64
"""What vendors put around messages and tools: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
tells of up to 530 tokens for tools, the others of fewer."""

UNKNOWN_WINDOW = 1_000_000
"""Tokens that a model reads where the price table does not say. Of a picture or a file nobody knows before what it
comes to, but no model reads more than its window."""


def most_input(command: Command, input_size: int, target: Target) -> int:
    """In tokens: no token has less than a byte (`input_size`)."""
    window = context_window(target.provider, target.model) or UNKNOWN_WINDOW
    if isinstance(command, EmbedCommand):
        return input_size + MESSAGE_TOKENS * len(command.inputs)
    assert isinstance(command, CompleteCommand)  # noqa: S101  # there is no third
    if any(not isinstance(part, TextPart) for message in command.messages for part in message.parts):
        return window
    tokens = input_size + CALL_TOKENS + MESSAGE_TOKENS * len(command.messages)
    if command.tools:
        tokens += TOOLS_TOKENS + TOOL_TOKENS * len(command.tools)
    if command.response_format is not None:
        tokens += TOOLS_TOKENS + len(orjson.dumps(command.response_format.schema))
    return min(tokens, window)


def most_output(command: Command, target: Target) -> int | None:
    """In tokens; None where neither the call nor what is known of the model says."""
    if isinstance(command, EmbedCommand):
        return 0
    assert isinstance(command, CompleteCommand)  # noqa: S101  # there is no third
    if command.max_tokens is not None:
        return command.max_tokens
    facts = FACTS.get((target.provider, target.model))
    return None if facts is None else facts.max_output_tokens


def most_cost(prices: PriceBook, target: Target, tokens: tuple[int, int], at: datetime) -> Decimal | None:
    """In USD, for input and output at the dearest of their kinds; None where there is no price."""
    if prices is UNKNOWN_RULES:
        return None
    most_in, most_out = tokens
    terms = prices.terms(target.provider, target.model, at)
    costs = [
        cost_of(target.provider, target.model, usage, at, terms).cost
        for usage in (
            Usage(most_in, most_out),
            Usage(most_in, most_out, cache_write_tokens=most_in, reasoning_tokens=most_out),
            Usage(most_in, most_out, cached_input_tokens=most_in),
            Usage(most_in, most_out, input_image_tokens=most_in, output_image_tokens=most_out),
        )
    ]
    known = [cost for cost in costs if cost is not None]
    return max(known) if len(known) == len(costs) else None
