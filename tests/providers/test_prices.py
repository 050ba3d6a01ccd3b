from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import data_snapshot
from hypothesis import given
from hypothesis import strategies as st

from persistence.records import CostSource
from providers.prices import PRICE_VERSION, PricedCost, cost_of, load_prices
from providers.types import Usage

NOW = datetime(2026, 6, 1, tzinfo=UTC)
M = 1_000_000

# USD for a million tokens, worked by hand.
TABLE = [
    # input 0.15, cached 0.075, output 0.60: 800 x 0.15 + 200 x 0.075 + 300 x 0.60 = 120 + 15 + 180 = 315
    ("openai", "gpt-4o-mini", Usage(1000, 300, cached_input_tokens=200), "0.000315"),
    # a dated name is the same model; 1M x 0.15 + 1M x 0.60
    ("openai", "gpt-4o-mini-2024-07-18", Usage(M, M), "0.75"),
    # input 3, read 0.30, write 3.75, output 15: 100 x 3 + 500 x 0.3 + 400 x 3.75 + 50 x 15 = 300 + 150 + 1500 + 750
    ("anthropic", "claude-sonnet-4-5", Usage(1000, 50, cached_input_tokens=500, cache_write_tokens=400), "0.0027"),
    # past 200,000 input tokens every kind is dearer: 100k x 6 + 100k x 0.6 + 50k x 7.5 + 1k x 22.5, / 1M
    # = 0.6 + 0.06 + 0.375 + 0.0225
    ("anthropic", "claude-sonnet-4-5", Usage(250_000, 1000, 100_000, 50_000), "1.0575"),
    # input 0.30, cached 0.03, output 2.50, reasoning is output: 900 x 0.3 + 100 x 0.03 + 40 x 2.5 = 270 + 3 + 100
    ("google", "gemini-2.5-flash", Usage(1000, 40, cached_input_tokens=100, reasoning_tokens=30), "0.000373"),
    # the tier begins above its start: 200,000 x 1.25 and 200,001 x 2.50
    ("google", "gemini-2.5-pro", Usage(200_000, 0), "0.25"),
    ("google", "gemini-2.5-pro", Usage(200_001, 0), "0.5000025"),
    # input 0.59, output 0.79: 1000 x 0.59 + 300 x 0.79 = 590 + 237
    ("groq", "llama-3.3-70b-versatile", Usage(1000, 300), "0.000827"),
    # a model without a cache price: a cached token costs what any other does
    ("groq", "llama-3.3-70b-versatile", Usage(1000, 300, cached_input_tokens=900), "0.000827"),
    # input 0.30, sound 1, cached 0.03, cached sound 0.10, output 2.50 (https://ai.google.dev/gemini-api/docs/pricing):
    # 300 of text x 0.3 + 400 of sound x 1 + 100 of cached text x 0.03 + 200 of cached sound x 0.1 + 40 x 2.5
    # = 90 + 400 + 3 + 20 + 100
    (
        "google",
        "gemini-2.5-flash",
        Usage(1000, 40, cached_input_tokens=300, input_audio_tokens=600, cached_audio_tokens=200),
        "0.000613",
    ),
    # input 0.30, output 2.50, a picture's 30: 100 x 0.3 + 10 x 2.5 + 1290 x 30 = 30 + 25 + 38700
    ("google", "gemini-2.5-flash-image", Usage(100, 1300, output_image_tokens=1290), "0.038755"),
    # where sound and pictures have no price of their own they are text: 1000 x 0.30 + 40 x 2.50
    ("google", "gemini-2.5-flash", Usage(1000, 40, input_image_tokens=258, output_audio_tokens=40), "0.0004"),
    # input 2.50, sound 32, output 10, sound 64 (https://platform.openai.com/docs/pricing):
    # 200 x 2.5 + 800 x 32 + 100 x 10 + 400 x 64 = 500 + 25600 + 1000 + 25600
    ("openai", "gpt-audio", Usage(1000, 500, input_audio_tokens=800, output_audio_tokens=400), "0.0527"),
    # since 2026-03-16 input 0.15, output 0.60: 1000 x 0.15 + 300 x 0.60 = 150 + 180
    ("mistral", "mistral-small-latest", Usage(1000, 300), "0.00033"),
    # OpenRouter without its own figure: 1000 x 0.15 + 300 x 0.60
    ("openrouter", "openai/gpt-4o-mini", Usage(1000, 300), "0.00033"),
    # only input has a price, and only input is used
    ("openai", "text-embedding-3-small", Usage(M, 0), "0.02"),
    ("openrouter", "deepseek/deepseek-chat:free", Usage(1000, 300), "0"),
    ("scripted", "echo", Usage(1000, 300), "0"),
    # the parts exceed their sum: nothing is priced below zero
    ("groq", "llama-3.3-70b-versatile", Usage(10, 0, cached_input_tokens=20), "0.0000118"),
    ("openai", "gpt-4o-mini", Usage(), "0"),
]


@pytest.mark.parametrize(("provider", "model", "usage", "cost"), TABLE)
def test_the_table(provider: str, model: str, usage: Usage, cost: str) -> None:
    assert cost_of(provider, model, usage, NOW) == PricedCost(Decimal(cost), "price_table", PRICE_VERSION)


def test_the_vendors_own_figure_wins() -> None:
    usage = Usage(1000, 300, cost=Decimal("0.0123"))
    assert cost_of("openrouter", "openai/gpt-4o-mini", usage, NOW) == PricedCost(Decimal("0.0123"), "provider", None)
    assert cost_of("compatible", "x", Usage(1, cost=Decimal(0)), NOW).cost == 0


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("compatible", "gpt-4o-mini"),
        ("nobody", "gpt-4o-mini"),
        ("openai", ""),
        ("openai", "whisper-1"),  # priced by the hour of audio
        ("openai", "text-embedding-3-small"),  # no price for what it can't write
    ],
)
def test_what_has_no_price_costs_unknown(provider: str, model: str) -> None:
    assert cost_of(provider, model, Usage(10, 10), NOW) == PricedCost(None, "unknown", PRICE_VERSION)


def test_what_was_billed_at_other_prices_costs_unknown() -> None:
    assert cost_of("openai", "gpt-4o-mini", Usage(10, 2, off_table=True), NOW) == PricedCost(None, "unknown", None)
    told = Usage(10, 2, cost=Decimal("0.5"), off_table=True)
    assert cost_of("openai", "gpt-4o-mini", told, NOW).cost == Decimal("0.5")


def test_prices_are_those_of_the_time() -> None:
    """o3: input 10 and output 40 until 2025-06-09, then 2 and 8. Mistral Small: 0.10 and 0.30 before 2026-03-16."""
    before, after = datetime(2025, 6, 9, 23, 59, tzinfo=UTC), datetime(2025, 6, 10, tzinfo=UTC)
    assert cost_of("openai", "o3", Usage(M, M), before).cost == 50
    assert cost_of("openai", "o3", Usage(M, M), after).cost == 10
    assert cost_of("mistral", "mistral-small-latest", Usage(M, M), after).cost == Decimal("0.4")


def test_names_agree_with_the_ledger_and_the_table() -> None:
    load_prices()
    assert {"provider", "price_table", "unknown"} <= {str(source) for source in CostSource}
    assert genai_prices.__version__ in PRICE_VERSION


VENDORS = ("openai", "anthropic", "google", "groq", "mistral", "openrouter")
OF_TABLE = {
    (vendor.id, model.id): (vendor, model)
    for vendor in data_snapshot.get_snapshot().providers
    if vendor.id in VENDORS
    for model in vendor.models
    if vendor.find_model(model.id) is model
}


@given(
    st.sampled_from(list(OF_TABLE)),
    st.integers(0, 300_000),
    st.integers(0, 200_000),
    st.integers(0, 200_000),
    st.integers(0, 50_000),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
    st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_every_sum_is_the_librarys_own(
    entry: tuple[str, str],
    plain: int,
    cached: int,
    written: int,
    output: int,
    sound: tuple[float, float, float],
    at: datetime,
) -> None:
    vendor_name, name = entry
    vendor, model = OF_TABLE[entry]
    heard, cached_heard, spoken = (int(share * of) for share, of in zip(sound, (plain, cached, output), strict=True))
    usage = Usage(
        plain + cached + written,
        output,
        cached,
        written,
        input_audio_tokens=heard + cached_heard,
        cached_audio_tokens=cached_heard,
        output_audio_tokens=spoken,
    )
    priced = cost_of(vendor_name, name, usage, at)
    counts = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=output,
        cache_read_tokens=cached,
        cache_write_tokens=written,
        input_audio_tokens=heard + cached_heard,
        cache_audio_read_tokens=cached_heard,
        output_audio_tokens=spoken,
    )
    if priced.cost is not None:
        assert priced.cost == model.calc_price(counts, vendor, genai_request_timestamp=at).total_price
