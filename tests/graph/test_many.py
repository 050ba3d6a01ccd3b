"""completeMany through the schema: a union in the inputs' order, errors as data, bad input by its place."""

from __future__ import annotations

from typing import Any

from graph.errors import UNEXPECTED
from resolvers.fan_out import MAX_INPUTS
from tests.resolvers.scene import texts, unavailable

from .stage import Stage, refusals

MANY = """
mutation ($inputs: [CompleteInput!]!) {
  completeMany(inputs: $inputs) {
    __typename
    ... on Completion { id content usage { outputTokens } }
    ... on CompletionFailure {
      index code message path provider retryable retryAfterMs completionId
      attempts { provider outcome } usage { outputTokens }
    }
  }
}
"""


def asked(model: str = "alpha/a-1", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "USER", "content": "hello"}], **more}


async def many(stage: Stage, *inputs: dict[str, Any]) -> list[dict[str, Any]]:
    data, errors = await stage.ask(MANY, {"inputs": list(inputs)})
    assert errors == []
    assert data is not None
    found: list[dict[str, Any]] = data["completeMany"]
    return found


async def test_answers_and_failures_side_by_side(stage: Stage) -> None:
    stage.scene.alpha.will(texts("one"), texts("three"))
    stage.scene.beta.will(*([unavailable("beta", status=503)] for _ in range(3)))
    first, second, third = await many(stage, asked(), asked("beta/b-1"), asked())
    assert (first["__typename"], first["content"], third["content"]) == ("Completion", "one", "three")
    assert first["usage"] == {"outputTokens": 2}
    assert second == {
        "__typename": "CompletionFailure",
        "index": 1,
        "code": "PROVIDER_UNAVAILABLE",
        "message": "overloaded",
        "path": None,
        "provider": "beta",
        "retryable": True,
        "retryAfterMs": None,
        "completionId": second["completionId"],
        "attempts": [{"provider": "beta", "outcome": "FAILED"}] * 3,
        "usage": {"outputTokens": 0},
    }
    record, errors = await stage.ask(f'{{ completion(by: {{ id: "{second["completionId"]}" }}) {{ outcome }} }}')
    assert (record, errors) == ({"completion": {"outcome": "FAILED"}}, [])


async def test_a_bad_input_fails_alone_and_says_where(stage: Stage) -> None:
    stage.scene.alpha.will(texts("fine"))
    outcomes = await many(
        stage,
        asked("no slash"),  # found when the input is read
        asked("gamma/g-1"),  # found when the command is checked
        asked(labels=[{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]),
        asked(),
    )
    assert [(each.get("code"), each.get("path")) for each in outcomes] == [
        ("BAD_USER_INPUT", ["inputs", 0, "model"]),
        ("BAD_USER_INPUT", ["inputs", 1, "model"]),
        ("BAD_USER_INPUT", ["inputs", 2, "labels", 1, "name"]),
        (None, None),
    ]
    assert [(each["completionId"], each["attempts"], each["usage"]) for each in outcomes[:3]] == [
        (None, [], {"outputTokens": 0})
    ] * 3
    assert outcomes[3]["content"] == "fine"


async def test_a_defect_of_ours_is_masked_and_stays_alone(stage: Stage) -> None:
    stage.scene.alpha.will([RuntimeError("secret detail")])
    stage.scene.beta.will(texts("fine"))
    failure, answer = await many(stage, asked(), asked("beta/b-1"))
    assert (failure["code"], failure["message"], failure["retryable"]) == ("INTERNAL", UNEXPECTED, False)
    assert answer["content"] == "fine"


async def test_a_ledger_that_is_full_may_be_tried_again(stage: Stage) -> None:
    stage.scene.inflight.full = True
    (failure,) = await many(stage, asked())
    assert (failure["code"], failure["retryable"], failure["path"]) == ("SERVICE_UNAVAILABLE", True, None)


async def test_too_many_are_refused_as_a_whole(stage: Stage) -> None:
    data, errors = await stage.ask(MANY, {"inputs": [asked()] * (MAX_INPUTS + 1)})
    assert data == {"completeMany": None}
    assert refusals(errors) == [("BAD_USER_INPUT", ["inputs"])]
    assert stage.scene.alpha.calls == []
