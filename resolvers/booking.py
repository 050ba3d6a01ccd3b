"""What an attempt is booked as: tokens, cost, outcome. One entry per attempt, whatever its end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from persistence.records import CostSource, LedgerEntry, Outcome
from providers.capabilities import BILL_REFUSALS
from providers.errors import ProviderContentFilteredError, ProviderContextLengthError, ProviderError
from providers.fold import Fold
from providers.prices import PricedCost, cost_of
from providers.types import Message, Part, ProviderCompletion, ProviderEmbeddings, TextPart, Tool, Usage

from .price_book import UNKNOWN_RULES, PriceBook
from .principal import Principal
from .types import Attempt, Command, CompleteCommand, Target, TokenUsage

MEDIA_BYTES = 4_000
BYTES_PER_TOKEN = 4  # English text, by OpenAI's rule of thumb; https://help.openai.com/en/articles/4936856

Answer = ProviderCompletion | ProviderEmbeddings


@dataclass(frozen=True, slots=True)
class Fragment:
    """An answer that is not whole: what was `seen` of it, and how many tokens its model may have read and written, as
    `unseen` has it."""

    seen: Fold
    read_tokens: int
    written_tokens: int
    latency_ms: int
    first_token_ms: int | None


_NO_PRICE = PricedCost(None, "unknown", None)


def estimate_tokens(size: int) -> int:
    """A guess at the tokens of `size` UTF-8 bytes, for entries that no vendor figure is to be had for."""
    return -(-size // BYTES_PER_TOKEN)


def input_size(command: CompleteCommand) -> int:
    """As `input_bytes`, with the schema that its answer is to have."""
    asked = command.response_format
    schema = 0 if asked is None or asked.schema is None else len(orjson.dumps(asked.schema))
    return input_bytes(command.messages, command.tools) + schema


def input_bytes(messages: Iterable[Message], tools: Iterable[Tool]) -> int:
    """UTF-8 bytes of all that the model reads; of an image or a file, what has about as many tokens."""
    size = 0
    for message in messages:
        size += _size(message.content) + sum(map(_part_size, message.parts))
        size += sum(_size(block.text) for block in message.reasoning)
        for call in message.tool_calls:
            size += _size(call.name) + _size(call.arguments)
    for tool in tools:
        size += _size(tool.name) + _size(tool.description) + len(orjson.dumps(tool.parameters))
    return size


def _part_size(part: Part) -> int:
    return _size(part.text) if isinstance(part, TextPart) else MEDIA_BYTES


def _size(text: str | None) -> int:
    return len(text.encode()) if text else 0


def opening_entry(
    *,
    principal: Principal,
    command: Command,
    completion_id: str,
    created_at: datetime,
    attempt: int,
    target: Target,
    input_size: int,
    streamed: bool,
) -> LedgerEntry:
    """The entry that stands if nothing more is ever heard of the attempt: abandoned, its input estimated from its size
    in bytes, not yet priced (see `abandoned`)."""
    return LedgerEntry(
        time=created_at,
        completion_id=completion_id,
        attempt=attempt,
        organisation=principal.organisation,
        principal=principal.subject,
        provider=target.provider,
        model=target.model,
        outcome=Outcome.ABANDONED,
        end_user=command.end_user,
        config=command.config,
        config_version=command.config_version,
        idempotency_key=command.idempotency_key,
        streamed=streamed,
        labels=command.labels,
        input_tokens=estimate_tokens(input_size),
        estimated=True,
    )


def abandoned(entry: LedgerEntry, prices: PriceBook) -> LedgerEntry:
    """What is booked for an attempt whose process died: an opening entry with its price."""
    if entry.outcome is not Outcome.ABANDONED:
        return entry  # its end was known, only the commit was missing
    return _with_usage(entry, Usage(input_tokens=entry.input_tokens), prices, estimated=True)


def succeeded(
    entry: LedgerEntry,
    answer: Answer,
    *,
    prices: PriceBook,
    most_output: int | None,
    latency_ms: int,
    first_token_ms: int | None,
    batched: bool = False,
) -> LedgerEntry:
    """A whole answer. Where the vendor sent no usage, it is estimated from what went in and came out, as no more than
    `most_output` tokens. `batched`: it came by the vendor's batch API."""
    written = answer if isinstance(answer, ProviderCompletion) else ProviderCompletion()
    usage = answer.usage or Usage(entry.input_tokens, _estimated_output(written, most_output))
    return _with_usage(
        entry,
        usage,
        prices,
        estimated=answer.usage is None,
        batched=batched,
        outcome=Outcome.SUCCEEDED,
        latency_ms=latency_ms,
        time_to_first_token_ms=first_token_ms,
        finish_reason=written.finish_reason,
    )


def failed(entry: LedgerEntry, error: ProviderError, fragment: Fragment, *, prices: PriceBook) -> LedgerEntry:
    """An error. One that came as an HTTP status cost nothing, at most vendors; one that cut an answer off cost what was
    produced, and what nobody has seen of it."""
    booked = _cut_short(entry, fragment, prices) if _may_be_billed(entry.provider, error) else _not_billed(entry)
    return _ended(booked, Outcome.FAILED, error.code, fragment)


def _may_be_billed(provider: str, error: ProviderError) -> bool:
    if not error.sent or error.status is None or error.status < 300:
        return error.sent
    processed = isinstance(error, ProviderContentFilteredError | ProviderContextLengthError) or error.status == 408
    return processed and provider in BILL_REFUSALS


def interrupted(
    entry: LedgerEntry, fragment: Fragment, *, error_code: str | None, prices: PriceBook, sent: bool
) -> LedgerEntry:
    """Our side ended it: the deadline (`error_code`), or the caller (no code). What was produced is booked, and what
    nobody has seen of it."""
    booked = _cut_short(entry, fragment, prices) if sent else _not_billed(entry)
    return _ended(booked, Outcome.FAILED if error_code else Outcome.CANCELLED, error_code, fragment)


def unsent(entry: LedgerEntry) -> LedgerEntry:
    """What an attempt came to that no vendor saw. It is not booked."""
    return replace(_not_billed(entry), outcome=Outcome.CANCELLED)


def _ended(entry: LedgerEntry, outcome: Outcome, error_code: str | None, fragment: Fragment) -> LedgerEntry:
    return replace(
        entry,
        outcome=outcome,
        error_code=error_code,
        latency_ms=fragment.latency_ms,
        time_to_first_token_ms=fragment.first_token_ms,
    )


def _cut_short(entry: LedgerEntry, fragment: Fragment, prices: PriceBook) -> LedgerEntry:
    """Exact where the vendor's final figures had already come; else its input figure, or ours, and what we counted."""
    seen = fragment.seen.usage
    if seen and fragment.seen.finish_reason:
        return _with_usage(entry, seen, prices, estimated=False)
    usage = seen or Usage(input_tokens=fragment.read_tokens)
    return _with_usage(entry, replace(usage, output_tokens=fragment.written_tokens), prices, estimated=True)


def _not_billed(entry: LedgerEntry) -> LedgerEntry:
    return replace(
        entry, input_tokens=0, cost=Decimal(0), cost_source=CostSource.NOT_BILLED, price_version=None, estimated=False
    )


def _with_usage(
    entry: LedgerEntry, usage: Usage, prices: PriceBook, *, estimated: bool, batched: bool = False, **more: Any
) -> LedgerEntry:
    """The entry with these tokens and their price; `more` are other fields to set in the same stroke."""
    priced = _NO_PRICE
    if prices is not UNKNOWN_RULES:
        terms = prices.terms(entry.provider, entry.model, entry.time)
        priced = cost_of(entry.provider, entry.model, usage, entry.time, terms, batched=batched)
    return replace(
        entry,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost=priced.cost,
        cost_source=CostSource(priced.source),
        price_version=priced.price_version,
        estimated=estimated,
        **more,
    )


def _estimated_output(answer: ProviderCompletion, most: int | None) -> int:
    tools = (call.name + call.arguments for call in answer.tool_calls)
    size = sum(len(text.encode()) for text in (answer.content or "", answer.reasoning or "", *tools))
    return estimate_tokens(size) if most is None else min(estimate_tokens(size), most)


def attempt_of(entry: LedgerEntry) -> Attempt:
    return Attempt(
        entry.attempt,
        entry.provider,
        entry.model,
        entry.outcome,
        entry.error_code,
        entry.latency_ms,
        entry.time_to_first_token_ms,
        _usage_of(entry),
        entry.price_version,
    )


def _usage_of(entry: LedgerEntry) -> TokenUsage:
    return TokenUsage(
        entry.input_tokens,
        entry.output_tokens,
        entry.cached_input_tokens,
        entry.cache_write_tokens,
        entry.reasoning_tokens,
        entry.cost,
        entry.cost_source,
        entry.estimated,
    )


def total_usage(entries: Sequence[LedgerEntry]) -> TokenUsage:
    """A completion is the sum of its attempts and their corrections. Its cost is unknown as soon as one attempt's is,
    unless a correction settled that."""
    if len(entries) == 1:
        return _usage_of(entries[0])
    attempts = [entry for entry in entries if entry.attempt >= 0]
    priced = {entry.corrects for entry in entries if entry.settles_cost}
    measured = {entry.corrects for entry in entries if entry.settles_estimate}
    known = all(entry.cost is not None or entry.attempt in priced for entry in attempts)
    return TokenUsage(
        input_tokens=sum(entry.input_tokens for entry in entries),
        output_tokens=sum(entry.output_tokens for entry in entries),
        cached_input_tokens=sum(entry.cached_input_tokens for entry in entries),
        cache_write_tokens=sum(entry.cache_write_tokens for entry in entries),
        reasoning_tokens=sum(entry.reasoning_tokens for entry in entries),
        cost=sum((entry.cost for entry in entries if entry.cost is not None), Decimal(0)) if known else None,
        cost_source=_cost_source(entries),
        estimated=any(entry.estimated and entry.attempt not in measured for entry in attempts),
    )


def _cost_source(entries: Sequence[LedgerEntry]) -> CostSource:
    """The source of the attempts that were billed, or of their last correction; unknown wins, for it makes the sum
    unknown."""
    corrections = sorted((entry for entry in entries if entry.attempt < 0), key=lambda entry: -entry.attempt)
    corrected = {entry.corrects: entry.cost_source for entry in corrections if entry.cost is not None}
    sources = [corrected.get(entry.attempt, entry.cost_source) for entry in entries if entry.attempt >= 0]
    if CostSource.UNKNOWN in sources:
        return CostSource.UNKNOWN
    billed = [source for source in sources if source is not CostSource.NOT_BILLED]
    return billed[-1] if billed else CostSource.NOT_BILLED
