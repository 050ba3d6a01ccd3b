"""Embeddings through the schema."""

from __future__ import annotations

from typing import Any

import pytest

from providers.types import EmbeddingRequest, Finished, Usage

from .stage import Stage, refusals

EMBED = """mutation ($input: EmbedInput!) { embed(input: $input) {
  id provider model vectors dimensions usage { inputTokens outputTokens estimated } attempts { number } latencyMs
} }"""
ASKED = {"model": "alpha/a-1", "inputs": ["one", "three"]}


async def test_vectors_are_told_as_they_came(stage: Stage) -> None:
    alpha = stage.scene.alpha
    alpha.will([(Finished(usage=Usage(5)),)])
    more = {
        "dimensions": 2,
        "endUser": "u",
        "labels": [{"name": "a", "value": "b"}],
        "providerOptions": {"alpha": {"x": 1}},
    }
    data, errors = await stage.ask(EMBED, {"input": ASKED | more})
    assert not errors
    assert data is not None
    found = data["embed"]
    assert (found["vectors"], found["dimensions"]) == ([[3.0], [5.0]], 1)
    assert found["usage"] == {"inputTokens": 5, "outputTokens": 0, "estimated": False}
    assert alpha.calls[0].request == EmbeddingRequest("a-1", ("one", "three"), 2, "u", {"x": 1})
    assert stage.scene.booked("completion_id", "labels") == [(found["id"], {"a": "b"})]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"model": "alpha"}, ["input", "model"]),
        ({"inputs": []}, ["input", "inputs"]),
        ({"inputs": ["x", ""]}, ["input", "inputs", 1]),
        ({"dimensions": -1}, ["input", "dimensions"]),
        ({"providerOptions": []}, ["input", "providerOptions"]),
        ({"labels": [{"name": "", "value": "b"}]}, ["input", "labels"]),
    ],
)
async def test_bad_input_is_named_where_it_stands(stage: Stage, change: dict[str, Any], path: list[Any]) -> None:
    _, errors = await stage.ask(EMBED, {"input": ASKED | change})
    assert refusals(errors) == [("BAD_USER_INPUT", path)]


async def test_it_wants_the_scope_of_completions(stage: Stage) -> None:
    data, errors = await stage.ask(EMBED, {"input": ASKED}, scopes=["completions:read"])
    assert (data, [code for code, _ in refusals(errors)]) == ({"embed": None}, ["FORBIDDEN"])
