"""An organisation's own prices and discounts against a plain calculation."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.prices import PRICE_VERSION, OwnDiscount, OwnPrices, PricedCost, cost_of, list_prices, own_prices
from providers.types import Usage
from tests.persistence.prices import amounts, percents

NOW = datetime(2026, 6, 1, tzinfo=UTC)
CONTRACT = OwnPrices("prc_1", Decimal(2), Decimal("0.5"), Decimal("2.5"), Decimal(8), Decimal(6))
TENTH = OwnDiscount("prc_2", Decimal(10))
EVERY_KIND = Usage(1000, 300, cached_input_tokens=500, cache_write_tokens=100, reasoning_tokens=200)
MINI = "openai", "gpt-4o-mini"

counts = st.integers(0, 2**40)
contracts = st.builds(OwnPrices, st.just("prc_1"), amounts, amounts, amounts, amounts, amounts)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    plain, cached, written, spoken, reasoned = (draw(counts) for _ in range(5))
    return Usage(plain + cached + written, spoken + reasoned, cached, written, reasoned)


def exact(cost: Decimal | None) -> Fraction:
    assert cost is not None
    return Fraction(cost)


def by_hand(usage: Usage, prices: OwnPrices) -> Fraction:
    plain = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    spoken = usage.output_tokens - usage.reasoning_tokens
    return (
        plain * Fraction(prices.input)
        + usage.cached_input_tokens * Fraction(prices.cache_read)
        + usage.cache_write_tokens * Fraction(prices.cache_write)
        + spoken * Fraction(prices.output)
        + usage.reasoning_tokens * Fraction(prices.reasoning)
    ) / 1_000_000


def test_each_kind_at_its_own_price() -> None:
    # 400 x 2 + 500 x 0.5 + 100 x 2.5 + 100 x 8 + 200 x 6 = 800 + 250 + 250 + 800 + 1200
    assert cost_of(*MINI, EVERY_KIND, NOW, CONTRACT) == PricedCost(Decimal("0.0033"), "organisation", "prc_1")


@given(usages(), contracts)
def test_own_prices_are_exact(usage: Usage, contract: OwnPrices) -> None:
    priced = cost_of("nobody", "no-such-model", usage, NOW, contract)
    assert exact(priced.cost) == by_hand(usage, contract)
    assert (priced.source, priced.price_version) == ("organisation", "prc_1")


@given(usages(), percents)
def test_a_discount_is_exact(usage: Usage, percent: Decimal) -> None:
    published = cost_of("anthropic", "claude-sonnet-4-5", usage, NOW)
    priced = cost_of("anthropic", "claude-sonnet-4-5", usage, NOW, OwnDiscount("prc_2", percent))
    assert exact(priced.cost) == exact(published.cost) * (100 - Fraction(percent)) / 100
    assert (priced.source, priced.price_version) == ("organisation", f"{PRICE_VERSION}+prc_2")


@pytest.mark.parametrize(
    ("percent", "cost"), [("0.01", "0.74992500"), ("33.333", "0.5000025"), ("99.99", "0.000075"), ("100", "0")]
)
def test_discounts_by_hand(percent: str, cost: str) -> None:
    """A million tokens of each kind: 0.15 + 0.60."""
    usage = Usage(1_000_000, 1_000_000)
    assert cost_of(*MINI, usage, NOW, OwnDiscount("prc_2", Decimal(percent))).cost == Decimal(cost)


def test_a_discount_needs_a_published_price() -> None:
    assert cost_of("openai", "no-such-model", EVERY_KIND, NOW, TENTH) == PricedCost(None, "unknown", PRICE_VERSION)
    unpriced = cost_of("openai", "text-embedding-3-small", Usage(10, 10), NOW, TENTH)
    assert unpriced == PricedCost(None, "unknown", PRICE_VERSION)


def test_a_discount_is_off_the_price_of_the_time() -> None:
    """o3: input 10 and output 40 until 2025-06-09, then 2 and 8."""
    usage = Usage(1_000_000, 1_000_000)
    costs = [cost_of("openai", "o3", usage, datetime(2025, 6, day, tzinfo=UTC), TENTH).cost for day in (9, 10)]
    assert costs == [45, 9]


def test_what_the_vendor_told() -> None:
    told = replace(EVERY_KIND, cost=Decimal("0.0123"))
    assert cost_of("openrouter", "x", told, NOW, TENTH) == PricedCost(Decimal("0.0123"), "provider", None)
    assert cost_of("openrouter", "x", told, NOW, CONTRACT) == PricedCost(Decimal("0.0033"), "organisation", "prc_1")


def test_another_service_tier() -> None:
    other = replace(EVERY_KIND, off_table=True)
    for terms in (CONTRACT, TENTH):
        assert cost_of(*MINI, other, NOW, terms) == PricedCost(None, "unknown", None)
        told = cost_of(*MINI, replace(other, cost=Decimal(1)), NOW, terms)
        assert told == PricedCost(Decimal(1), "provider", None)


def test_prices_as_they_are_shown() -> None:
    own = own_prices(*MINI, NOW, CONTRACT)
    assert own is not None
    assert [own.input, own.cache_read, own.cache_write, own.output, own.reasoning, own.tiered] == [
        2,
        Decimal("0.5"),
        Decimal("2.5"),
        8,
        6,
        False,
    ]
    assert own_prices("openai", "no-such-model", NOW, TENTH) is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-4o-mini"), ("google", "gemini-2.5-pro"), ("openai", "text-embedding-3-small"), ("scripted", "x")],
)
def test_discounted_prices_as_they_are_shown(provider: str, model: str) -> None:
    published, own = list_prices(provider, model, NOW), own_prices(provider, model, NOW, TENTH)
    assert published is not None
    assert own is not None
    assert own.tiered is published.tiered
    for kind in ("input", "cache_read", "cache_write", "output", "reasoning"):
        price = getattr(published, kind)
        assert getattr(own, kind) == (None if price is None else price * Decimal("0.9"))


def test_what_the_vendor_tells_is_not_discounted() -> None:
    told = replace(EVERY_KIND, cost=Decimal("0.25"))
    openrouter = "openrouter", "openai/gpt-4o-mini"
    assert list_prices(*openrouter, NOW) is not None
    assert cost_of(*openrouter, told, NOW, TENTH) == PricedCost(Decimal("0.25"), "provider", None)
    assert own_prices(*openrouter, NOW, TENTH) is None
    assert own_prices(*openrouter, NOW, CONTRACT) is not None
