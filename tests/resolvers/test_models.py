"""The list of models: pages, filters, ids, and where its facts come from."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.capabilities import ModelCapability
from resolvers import models
from resolvers.errors import BadUserInputError, NotFoundError
from resolvers.models import MAX_PAGE, Model, ModelFilter

CONFIGURED = ("groq", "anthropic", "compatible", "scripted")


def everything(size: int = MAX_PAGE, **where: object) -> list[Model]:
    found: list[Model] = []
    after: str | None = None
    while True:
        page = models.models(CONFIGURED, first=size, after=after, where=ModelFilter(**where))  # type: ignore[arg-type]
        found += [model for _, model in page.models]
        assert len(page.models) == size or not page.more
        if not page.more:
            return found
        after = page.models[-1][0]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_put_together_are_the_whole_in_order(size: int) -> None:
    names = [(model.provider, model.name) for model in everything(size)]
    assert names == sorted(set(names))
    assert {provider for provider, _ in names} == {"groq", "anthropic", "scripted"}
    assert ("groq", "openai/gpt-oss-120b") in names


def test_facts_prices_and_window() -> None:
    (haiku,) = everything(search="ANTHROPIC/claude-haiku-4-5")
    assert haiku.context_window == 200_000
    assert haiku.facts is not None
    assert haiku.facts.max_output_tokens == 64_000
    assert haiku.prices is not None
    assert haiku.prices.input == Decimal(1)
    assert haiku.prices.output == haiku.prices.reasoning == Decimal(5)
    (echo,) = everything(provider="scripted", search="echo")
    assert (echo.context_window, echo.facts) == (None, None)
    assert echo.prices is not None
    assert echo.prices.output == 0


def test_filters_hold_at_once() -> None:
    thinking = everything(capability=ModelCapability.REASONING)
    assert {model.provider for model in thinking} == {"anthropic", "groq"}
    assert all(model.facts and ModelCapability.REASONING in model.facts.capabilities for model in thinking)
    mine = everything(capability=ModelCapability.REASONING, provider="groq", search="120B")
    assert [model.name for model in mine] == ["openai/gpt-oss-120b"]
    assert everything(provider="openai") == [], "it has no key here"


def test_an_id_finds_its_model_again() -> None:
    for model in everything():
        found = models.model(CONFIGURED, model.id)
        assert (found.provider, found.name) == (model.provider, model.name)
        assert model.id.startswith("mdl_")


def test_what_is_not_configured_is_not_found() -> None:
    (model, *_) = everything(provider="groq")
    with pytest.raises(NotFoundError):
        models.model(("anthropic",), model.id)


@given(st.one_of(st.text(), st.text("abcdefghijklmnop-_=", max_size=40).map("mdl_".__add__)))
def test_no_text_breaks_the_look_up(text: str) -> None:
    with pytest.raises(NotFoundError):
        models.model(CONFIGURED, text)
    with pytest.raises(BadUserInputError) as caught:
        models.models(CONFIGURED, first=1, after=text, where=ModelFilter())
    assert caught.value.path == ("after",)


@pytest.mark.parametrize("first", [0, -1, 101])
def test_a_page_has_bounds(first: int) -> None:
    with pytest.raises(BadUserInputError) as caught:
        models.models(CONFIGURED, first=first, after=None, where=ModelFilter())
    assert caught.value.path == ("first",)


def test_a_cursor_may_stand_behind_a_model_that_the_filter_leaves_out() -> None:
    first = models.models(CONFIGURED, first=1, after=None, where=ModelFilter()).models[0][0]
    rest = models.models(CONFIGURED, first=100, after=first, where=ModelFilter(provider="scripted"))
    assert [model.name for _, model in rest.models] == ["echo", "lorem", "tool"]
