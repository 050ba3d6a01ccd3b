"""How many values a label can have, whatever callers choose."""

from __future__ import annotations

import pytest

from gateway.metrics.labels import MAX_LENGTH, MAX_LISTED, MAX_UNLISTED, OTHER, FirstSeen, ModelLabels
from providers.prices import listed_models


def test_a_listed_model_has_its_name_at_once() -> None:
    assert ModelLabels().of("openai", "gpt-4o-mini") == "gpt-4o-mini"


@pytest.mark.parametrize("model", ["gpt-4o-mini-made-up", "made-up", "GPT-4O-MINI", ""])
def test_another_has_it_when_a_vendor_has_answered_for_it(model: str) -> None:
    """The price table knows many names by their beginning: that is not enough."""
    labels = ModelLabels()
    assert labels.of("openai", model) == OTHER
    labels.answered("openai", model)
    assert labels.of("openai", model) == model
    assert labels.of("azure", model) == OTHER


def test_there_is_a_bound_for_those_that_are_answered() -> None:
    labels = ModelLabels()
    for number in range(3 * MAX_UNLISTED):
        labels.answered("openai", f"made-up-{number}")
    named = {labels.of("openai", f"made-up-{number}") for number in range(3 * MAX_UNLISTED)}
    assert len(named) == MAX_UNLISTED + 1
    assert labels.of("openai", "gpt-4o-mini") == "gpt-4o-mini", "the others have their own places"


def test_there_is_a_bound_for_those_that_are_listed() -> None:
    labels = ModelLabels()
    models = [
        (each, model.name) for each in ("openrouter", "openai", "azure", "mistral") for model in listed_models(each)
    ]
    assert len(models) > MAX_LISTED
    assert sum(labels.of(*each) != OTHER for each in models) == MAX_LISTED


def test_a_long_name_has_no_place() -> None:
    labels, names = ModelLabels(), FirstSeen(10)
    labels.answered("openai", "x" * (MAX_LENGTH + 1))
    names.learn("x" * (MAX_LENGTH + 1))
    assert labels.of("openai", "x" * (MAX_LENGTH + 1)) == names["x" * (MAX_LENGTH + 1)] == OTHER


def test_the_first_names_are_kept() -> None:
    names = FirstSeen(2, ["known"])
    for name in ("a", "b", "c"):
        names.learn(name)
    assert [names[name] for name in ("known", "a", "b", "c")] == ["known", "a", "b", OTHER]
