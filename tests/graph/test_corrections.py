"""correctUsage, as its caller sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.persistence.entries import entry

from .stage import Stage, open_stage, refusals

CORRECT = """
mutation Correct($input: CorrectUsageInput!) {
  correctUsage(input: $input) {
    usage { inputTokens outputTokens cost costSource }
    attempts { usage { cost } }
    corrections {
      number attempt inputTokens outputTokens cachedInputTokens cacheWriteTokens reasoningTokens cost note by at
    }
  }
}
"""


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stage() as stage:
        stage.scene.store.entries = [
            entry(completion_id="cmp_1", input_tokens=2**38, output_tokens=5, reasoning_tokens=0, cost=Decimal("0.5"))
        ]
        yield stage


def asked(**changes: object) -> dict[str, object]:
    return {"input": {"completionId": "cmp_1", "attempt": 1, "note": "invoice 7", **changes}}


async def test_the_record_has_the_correction(stage: Stage) -> None:
    data, errors = await stage.ask(CORRECT, asked(inputTokens=2**39, cost="0.125"))
    assert errors == []
    assert data is not None
    record = data["correctUsage"]
    assert record["usage"] == {
        "inputTokens": 2**39,
        "outputTokens": 5,
        "cost": "0.125",
        "costSource": "CORRECTION",
    }
    assert record["attempts"] == [{"usage": {"cost": "0.5"}}]
    (correction,) = record["corrections"]
    assert correction.pop("at").endswith("+00:00")
    assert correction == {
        "number": 1,
        "attempt": 1,
        "inputTokens": 2**38,
        "outputTokens": 0,
        "cachedInputTokens": 0,
        "cacheWriteTokens": 0,
        "reasoningTokens": 0,
        "cost": "-0.375",
        "note": "invoice 7",
        "by": "key_1",
    }


async def test_refusals(stage: Stage) -> None:
    for changes, refusal in (
        ({"attempt": 2}, ("NOT_FOUND", None)),
        ({"outputTokens": -1}, ("BAD_USER_INPUT", ["input", "outputTokens"])),
        ({"note": ""}, ("BAD_USER_INPUT", ["input", "note"])),
    ):
        data, errors = await stage.ask(CORRECT, asked(**changes))
        assert data == {"correctUsage": None}
        assert refusals(errors) == [refusal]


async def test_it_takes_a_scope_of_its_own(stage: Stage) -> None:
    _, errors = await stage.ask(CORRECT, asked(cost="1"), scopes={"usage:read", "completions:read"})
    assert refusals(errors) == [("FORBIDDEN", None)]
    assert len(stage.scene.store.entries) == 1
