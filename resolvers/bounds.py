"""The most that a call can come to, known before it is made: what is reserved for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import orjson

from providers.capabilities import FACTS
from providers.prices import context_window, cost_of
from providers.types import TextPart, Usage

from .booking import input_bytes
from .errors import BadUserInputError, ServiceUnavailableError
from .price_book import UNKNOWN_RULES, PriceBook
from .types import Command, CompleteCommand, EmbedCommand, Target

CALL_TOKENS = 64
MESSAGE_TOKENS = 16
TOOLS_TOKENS = 1_000
TOOL_TOKENS = 64
"""What vendors put around messages and tools: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
tells of up to 530 tokens for tools, the others of fewer."""

WRITTEN_ANEW = 2
"""Some vendors write JSON schemas in another form, with spaces and line ends, before the model reads them."""

UNKNOWN_WINDOW = 1_000_000
"""Tokens that a model reads where the price table does not say. Of a picture or a file nobody knows before what it
comes to, but no model reads more than its window."""


def most_input(command: Command, input_size: int, target: Target) -> int:
    """In tokens: no token has less than a byte (`input_size`). Opaque signatures, which may stand for thoughts that the
    model reads again, have more bytes than these."""
    if isinstance(command, EmbedCommand):
        return input_size + MESSAGE_TOKENS * len(command.inputs)
    assert isinstance(command, CompleteCommand)  # noqa: S101  # there is no third
    calls = [call for message in command.messages for call in message.tool_calls]
    thoughts = [block for message in command.messages for block in message.reasoning]
    tokens = input_size + CALL_TOKENS + MESSAGE_TOKENS * (len(command.messages) + len(calls))
    tokens += sum(len(block.signature) for block in thoughts) + sum(len(call.signature or "") for call in calls)
    if command.tools:
        tokens += TOOLS_TOKENS + TOOL_TOKENS * len(command.tools)
        tokens += (WRITTEN_ANEW - 1) * input_bytes((), command.tools)  # once they are in `input_size`
    if command.response_format is not None:
        tokens += TOOLS_TOKENS + (WRITTEN_ANEW - 1) * len(orjson.dumps(command.response_format.schema))
    if has_media(command):
        return max(tokens, context_window(target.provider, target.model) or UNKNOWN_WINDOW)
    return tokens


def has_media(command: Command) -> bool:
    return isinstance(command, CompleteCommand) and any(
        not isinstance(part, TextPart) for message in command.messages for part in message.parts
    )


def most_output(command: Command, target: Target) -> int | None:
    """In tokens; None where neither the call nor what is known of the model says."""
    if isinstance(command, EmbedCommand):
        return 0
    assert isinstance(command, CompleteCommand)  # noqa: S101  # there is no third
    if command.max_tokens is not None:
        return command.max_tokens
    facts = FACTS.get((target.provider, target.model))
    return None if facts is None else facts.max_output_tokens


def most_tokens(command: Command, input_size: int, target: Target) -> tuple[int, int]:
    """Of input and output, where a limit applies. Raises BadUserInputError where nobody knows."""
    most_out = most_output(command, target)
    if most_out is None:
        raise BadUserInputError(
            f"how much {target} writes at most is not known, and a limit of tokens or USD applies: give maxTokens",
            path=("input", "maxTokens"),
        )
    return most_input(command, input_size, target), most_out


def most_usd(
    prices: PriceBook,
    command: Command,
    target: Target,
    tokens: tuple[int, int],
    at: datetime,
    *,
    batched: bool = False,
) -> Decimal:
    """As `most_cost`, where a budget applies. Raises BadUserInputError where nobody knows, ServiceUnavailableError."""
    if command.provider_options.get(target.provider):
        raise BadUserInputError(
            "a call under a USD budget takes no providerOptions: they may make it dearer than what is reserved",
            path=("input", "providerOptions"),
        )
    cost = most_cost(prices, target, tokens, at, media=has_media(command), batched=batched)
    if cost is None:
        raise BadUserInputError(
            f"{target} has no known price, and a USD budget applies: set a price for it, or use another model",
            path=("input", "model"),
        )
    return cost


def most_cost(
    prices: PriceBook,
    target: Target,
    tokens: tuple[int, int],
    at: datetime,
    *,
    media: bool,
    batched: bool = False,
) -> Decimal | None:
    """In USD, for input and output each of the dearest of its kinds, with `media` of sound and pictures too; None where
    there is no price. `batched`: by the vendor's batch API. Raises ServiceUnavailableError where prices can't be
    read."""
    if prices is UNKNOWN_RULES:
        raise ServiceUnavailableError("a USD budget applies, and prices can't be read at the moment")
    most_in, most_out = tokens
    terms = prices.terms(target.provider, target.model, at)
    plain = Usage(most_in, most_out)
    inputs = [replace(plain, cache_write_tokens=most_in), replace(plain, cached_input_tokens=most_in)]
    if media:
        inputs += [
            replace(plain, input_image_tokens=most_in),
            replace(plain, input_audio_tokens=most_in),
            replace(plain, input_audio_tokens=most_in, cached_audio_tokens=most_in, cached_input_tokens=most_in),
        ]
    outputs = [
        replace(plain, reasoning_tokens=most_out),
        replace(plain, output_image_tokens=most_out),
        replace(plain, output_audio_tokens=most_out),
    ]
    costs = [
        cost_of(target.provider, target.model, each, at, terms, batched=batched).cost
        for each in (plain, *inputs, *outputs)
    ]
    known = [cost for cost in costs if cost is not None]
    if len(known) < len(costs):
        return None
    by_input, by_output = known[: len(inputs) + 1], [known[0], *known[len(inputs) + 1 :]]
    return max(by_input) + max(by_output) - known[0]
