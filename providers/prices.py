"""Usage → cost in USD. An organisation's own prices win, then the vendor's own figure, then the price table of
genai-prices, read offline.

The table (https://github.com/pydantic/genai-prices) finds the model and the prices in force at a time; the sum is done
here, because the library validates its data anew on every call (100 µs; this takes 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, localcontext
from functools import cache, lru_cache
from typing import Literal

import genai_prices
from genai_prices import data_snapshot
from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from .types import Usage

PRICE_VERSION = f"genai-prices/{genai_prices.__version__}"

_VENDORS = frozenset({"openai", "anthropic", "google", "groq", "mistral", "openrouter"})
_TELLS_COST = frozenset({"openrouter"})
_PER = Decimal(1_000_000)
_ZERO = Decimal(0)
_MODELS = 4096
_EXACT = Context(prec=200)

BATCH_SHARES: Mapping[str, Decimal] = {"anthropic": Decimal("0.5"), "openai": Decimal("0.5")}
"""What a vendor's batch API costs, as a share of the price of the same calls by themselves:
https://platform.claude.com/docs/en/build-with-claude/batch-processing#pricing,
https://platform.openai.com/docs/guides/batch."""

_Price = Decimal | TieredPrices | None
_Constraint = StartDateConstraint | TimeOfDateConstraint | None


@dataclass(frozen=True, slots=True)
class PricedCost:
    """`cost` in USD, None where no price is known. `source` has the values of the ledger's cost source; `price_version`
    names the table, the organisation's own prices, or both where it has a discount ("table+discount"); it is None where
    the vendor itself named the cost."""

    cost: Decimal | None
    source: Literal["provider", "price_table", "organisation", "unknown"]
    price_version: str | None


@dataclass(frozen=True, slots=True)
class OwnPrices:
    """What an organisation pays, in USD for a million tokens of each kind. `version` names them."""

    version: str
    input: Decimal
    cache_read: Decimal
    cache_write: Decimal
    output: Decimal
    reasoning: Decimal


@dataclass(frozen=True, slots=True)
class OwnDiscount:
    """`percent` off the price table's prices, above 0 and up to 100. `version` names it."""

    version: str
    percent: Decimal


OwnTerms = OwnPrices | OwnDiscount | None
"""What an organisation has agreed on for a model; None: nothing."""


@dataclass(frozen=True, slots=True)
class _Rates:
    """USD for a million tokens of each kind; None where the table has no price for that kind."""

    input: _Price = None
    cache_read: _Price = None
    cache_write: _Price = None
    output: _Price = None
    reasoning: _Price = None
    input_audio: _Price = None
    cached_audio: _Price = None
    output_audio: _Price = None
    input_image: _Price = None
    output_image: _Price = None


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model that the table lists by the vendor's name. `context_window` in tokens, None where the table has none."""

    name: str
    context_window: int | None


@dataclass(frozen=True, slots=True)
class ListPrices:
    """USD for a million tokens of each kind, None where the table has none. `tiered`: a long input costs more."""

    input: Decimal | None
    cache_read: Decimal | None
    cache_write: Decimal | None
    output: Decimal | None
    reasoning: Decimal | None
    tiered: bool


_FREE = _Rates(*(_ZERO,) * 10)


def cost_of(
    provider: str, model: str, usage: Usage, at: datetime, terms: OwnTerms = None, *, batched: bool = False
) -> PricedCost:
    """What `usage` cost at the aware time `at`; `batched`: by the vendor's batch API. Each token is priced once: as
    plain input, cache read, cache write, output, reasoning, or as the sound or the picture that it stands for, where
    those have prices of their own. What is billed at other prices than the standard ones (`Usage.off_table`) has no
    known cost.

    Of `terms`, own prices stand above all but that; a discount lowers the table's prices, not what the vendor told. Of
    either a vendor's batch API costs its share.
    """
    if batched:
        return _batched(provider, cost_of(provider, model, usage, at, terms))
    if isinstance(terms, OwnPrices) and not usage.off_table:
        with localcontext(_EXACT):
            return PricedCost(_sum(terms, usage), "organisation", terms.version)
    if usage.cost is not None:
        return PricedCost(usage.cost, "provider", None)
    if usage.off_table:
        return PricedCost(None, "unknown", None)
    rates = _rates_at(_schedule(provider, model), at)
    cost = _sum(rates, usage) if rates is not None else None
    if cost is None or rates is None:
        return PricedCost(None, "unknown", PRICE_VERSION)
    if isinstance(terms, OwnDiscount):
        with localcontext(_EXACT):
            return PricedCost(cost * _share(terms), "organisation", f"{PRICE_VERSION}+{terms.version}")
    return PricedCost(cost, "price_table", PRICE_VERSION)


def _batched(provider: str, alone: PricedCost) -> PricedCost:
    if alone.cost is None or alone.source == "provider":
        return alone
    with localcontext(_EXACT):
        return PricedCost(alone.cost * BATCH_SHARES[provider], alone.source, f"{alone.price_version}+batch")


@cache  # one entry a provider of the registry
def listed_models(provider: str) -> tuple[ListedModel, ...]:
    """The models of a provider that the table lists, by name; none for a provider that it does not know."""
    if provider == "scripted":
        return tuple(ListedModel(name, None) for name in ("echo", "lorem", "tool"))
    if provider not in _VENDORS:
        return ()
    vendor = next(each for each in data_snapshot.get_snapshot().providers if each.id == provider)
    return tuple(sorted((ListedModel(each.id, each.context_window) for each in vendor.models), key=lambda it: it.name))


@lru_cache(_MODELS)
def context_window(provider: str, model: str) -> int | None:
    """In tokens; None where the table does not say."""
    info = _find(provider, model)
    return None if info is None else info.context_window


def list_prices(provider: str, model: str, at: datetime) -> ListPrices | None:
    """The prices in force at the aware time `at`, in the table's lowest tier; None where the table has none."""
    rates = _rates_at(_schedule(provider, model), at)
    if rates is None:
        return None
    return ListPrices(
        input=_base(rates.input),
        cache_read=_base(rates.cache_read),
        cache_write=_base(rates.cache_write),
        output=_base(rates.output),
        reasoning=_base(rates.reasoning),
        tiered=isinstance(rates.input, TieredPrices) or isinstance(rates.output, TieredPrices),
    )


def own_prices(provider: str, model: str, at: datetime, terms: OwnPrices | OwnDiscount) -> ListPrices | None:
    """What `terms` come to at the aware time `at`, as `list_prices`: the lowest tier of what is discounted; None where
    there is no price to discount, or the vendor tells what a call cost."""
    if isinstance(terms, OwnPrices):
        return ListPrices(terms.input, terms.cache_read, terms.cache_write, terms.output, terms.reasoning, tiered=False)
    if provider in _TELLS_COST:
        return None
    published = list_prices(provider, model, at)
    if published is None:
        return None
    share = _share(terms)
    return ListPrices(
        input=_lowered(published.input, share),
        cache_read=_lowered(published.cache_read, share),
        cache_write=_lowered(published.cache_write, share),
        output=_lowered(published.output, share),
        reasoning=_lowered(published.reasoning, share),
        tiered=published.tiered,
    )


def load_prices() -> None:
    """Read the price table (about half a second), so that the first completion does not wait for it."""
    data_snapshot.get_snapshot()


def _share(discount: OwnDiscount) -> Decimal:
    """What is left to pay, 0 to 1."""
    return (1 - discount.percent / 100).normalize()


def _lowered(price: Decimal | None, share: Decimal) -> Decimal | None:
    return None if price is None else _EXACT.multiply(price, share)


def _sum(rates: _Rates | OwnPrices, usage: Usage) -> Decimal | None:
    total = _ZERO
    for count, price in _parts(rates, usage) if isinstance(rates, _Rates) else _own_parts(rates, usage):
        if count <= 0:
            continue
        if price is None:
            return None
        total += count * _rate(price, usage.input_tokens)
    return total / _PER


_Parts = tuple[tuple[int, _Price], ...]


def _own_parts(prices: OwnPrices, usage: Usage) -> _Parts:
    """An agreement knows five kinds: sound and pictures are input and output like any other."""
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    return (
        (plain, prices.input),
        (usage.cached_input_tokens, prices.cache_read),
        (usage.cache_write_tokens, prices.cache_write),
        (usage.output_tokens - usage.reasoning_tokens, prices.output),
        (usage.reasoning_tokens, prices.reasoning),
    )


def _parts(rates: _Rates, usage: Usage) -> _Parts:
    """Each token once. Of sound, what was cached is told; pictures are told whole, and are cached with the text."""
    heard = usage.input_audio_tokens - usage.cached_audio_tokens
    seen = usage.input_image_tokens
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens - heard - seen
    shown = usage.output_audio_tokens + usage.output_image_tokens
    return (
        (plain, rates.input),
        (usage.cached_input_tokens - usage.cached_audio_tokens, rates.cache_read),
        (usage.cache_write_tokens, rates.cache_write),
        (usage.output_tokens - usage.reasoning_tokens - shown, rates.output),
        (usage.reasoning_tokens, rates.reasoning),
        (heard, rates.input_audio),
        (usage.cached_audio_tokens, rates.cached_audio),
        (usage.output_audio_tokens, rates.output_audio),
        (seen, rates.input_image),
        (usage.output_image_tokens, rates.output_image),
    )


def _rate(price: Decimal | TieredPrices, input_tokens: int) -> Decimal:
    """A tier holds for the whole call once its input passes the tier's start."""
    if isinstance(price, Decimal):
        return price
    return next((tier.price for tier in reversed(price.tiers) if input_tokens > tier.start), price.base)


def _base(price: _Price) -> Decimal | None:
    return price.base if isinstance(price, TieredPrices) else price


def _rates_at(schedule: tuple[tuple[_Constraint, _Rates], ...], at: datetime) -> _Rates | None:
    """The last price whose condition holds; the first one where none does."""
    for constraint, rates in reversed(schedule):
        if constraint is None or constraint.active(at):
            return rates
    return schedule[0][1] if schedule else None


@lru_cache(_MODELS)
def _schedule(provider: str, model: str) -> tuple[tuple[_Constraint, _Rates], ...]:
    """A model's prices with their conditions; empty where the table does not know it."""
    if provider == "scripted":
        return ((None, _FREE),)
    info = _find(provider, model)
    if info is None:
        return ()
    if isinstance(info.prices, ModelPrice):
        return ((None, _rates(info.prices)),)
    return tuple((each.constraint, _rates(each.prices)) for each in info.prices)


def _find(provider: str, model: str) -> ModelInfo | None:
    """Not through the snapshot's own lookup: its cache has no bound, and callers choose the model names."""
    if provider not in _VENDORS:
        return None
    vendors = data_snapshot.get_snapshot().providers
    vendor = next(each for each in vendors if each.id == provider)
    return vendor.find_model(model, all_providers=vendors)


def _rates(prices: ModelPrice) -> _Rates:
    """A model with no price at all is a free one; one with prices for other units only (audio hours) has none here."""
    table: dict[str, Decimal | TieredPrices] = {
        name: price for name, price in vars(prices).items() if price is not None
    }
    if not table:
        return _FREE
    plain, output = table.get("input_mtok"), table.get("output_mtok")
    cached = table.get("cache_read_mtok", plain)
    return _Rates(
        input=plain,
        cache_read=cached,
        cache_write=table.get("cache_write_mtok", plain),
        output=output,
        reasoning=table.get("output_reasoning_mtok", output),
        input_audio=table.get("input_audio_mtok", plain),
        cached_audio=table.get("cache_audio_read_mtok", table.get("input_audio_mtok", cached)),
        output_audio=table.get("output_audio_mtok", output),
        input_image=table.get("input_image_mtok", plain),
        output_image=table.get("output_image_mtok", output),
    )
