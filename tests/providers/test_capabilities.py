"""Rows of facts: each about a model that exists, once, with its vendor's own page."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

from providers import registry
from providers.capabilities import FACTS, ROWS
from providers.prices import cost_of, list_prices, listed_models
from providers.types import Usage

NOW = datetime(2026, 3, 1, tzinfo=UTC)

VENDOR_PAGES = {
    "openai": "https://developers.openai.com/api/docs/models/",
    "anthropic": "https://platform.claude.com/docs/",
    "google": "https://ai.google.dev/gemini-api/docs/models",
    "groq": "https://console.groq.com/docs/model/",
}


def test_each_row_is_of_a_listed_model() -> None:
    assert {row.provider for row in ROWS} <= {row.name for row in registry.ROWS}
    for row in ROWS:
        windows = {listed.name: listed.context_window for listed in listed_models(row.provider)}
        assert row.model in windows, f"{row.provider}/{row.model} is a name that nobody is shown"
        assert row.max_output_tokens <= (windows[row.model] or row.max_output_tokens)


def test_each_model_has_one_row() -> None:
    assert len(FACTS) == len(ROWS)


def test_each_row_cites_its_vendor() -> None:
    for row in ROWS:
        assert row.source.startswith(VENDOR_PAGES[row.provider])
        assert re.fullmatch(r"https://[a-z./0-9-]+", row.source)


def test_a_provider_that_the_table_does_not_know_has_no_models() -> None:
    assert listed_models("compatible") == ()


def test_the_prices_shown_are_those_that_are_booked() -> None:
    prices = list_prices("google", "gemini-2.5-pro", NOW)
    assert prices is not None
    assert prices.tiered
    assert prices.input is not None
    assert cost_of("google", "gemini-2.5-pro", Usage(1000, 0), NOW).cost == prices.input / 1000
    assert list_prices("groq", "no-such-model", NOW) is None
    free = list_prices("scripted", "echo", NOW)
    assert free is not None
    assert (free.input, free.reasoning, free.tiered) == (Decimal(0), Decimal(0), False)
