"""What is told of limits: how they stand, and what had no room, by every way that a call can be made."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from graph.completions.events import CompletionFailed, event_of
from graph.limits import Limited, LimitMeasure, LimitReached
from tests.resolvers.scene import texts

from .stage import Stage

SET = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { limited } }"
SEEN = "{ viewer { limits { limited name measure limit used left endsAt } } }"
CALL = {"model": "alpha/a-1", "messages": [{"role": "USER", "content": "hello"}]}
COMPLETE = "mutation ($input: CompleteInput!) { complete(input: $input) { id } }"
MANY = (
    "mutation ($inputs: [CompleteInput!]!) { completeMany(inputs: $inputs) { ... on CompletionFailure { "
    "code retryable retryAfterMs limit { limited name measure limit used asked } } } }"
)
EMBED = "mutation ($input: EmbedInput!) { embed(input: $input) { id } }"
COUNTS = {"limit": "1", "used": "1", "asked": "1"}


@pytest.fixture
async def full(stage: Stage) -> Stage:
    """One request a minute, and it is made."""
    stage.scene.alpha.will(texts("hi"))
    await told(stage, SET, input={"requestsPerMinute": 1})
    await told(stage, COMPLETE, input=CALL)
    return stage


async def told(stage: Stage, query: str, **variables: Any) -> Any:
    data, errors = await stage.ask(query, variables)
    assert not errors, errors
    assert data is not None
    (value,) = data.values()
    return value


async def test_how_they_stand(full: Stage) -> None:
    await told(full, SET, input={"model": "beta/*", "streams": 3, "usdPerMonth": "0.5", "tokensPerMinute": 2000})
    found = (await told(full, SEEN))["limits"]
    stand = [tuple(each[name] for name in ("limited", "name", "measure", "limit", "used", "left")) for each in found]
    assert sorted(stand) == [
        ("MODEL", "beta/*", "STREAMS", "3", "0", "3"),
        ("MODEL", "beta/*", "TOKENS", "2000", "0", "2000"),
        ("MODEL", "beta/*", "USD_A_MONTH", "0.5", "0", "0.5"),
        ("ORGANISATION", None, "REQUESTS", "1", "1", "0"),
    ]
    assert [each["measure"] for each in found if each["endsAt"] is not None] == ["USD_A_MONTH"]


@pytest.mark.parametrize(
    ("query", "asked"),
    [(COMPLETE, CALL), (EMBED, {"model": "alpha/a-1", "inputs": ["hello"]})],
    ids=["complete", "embed"],
)
async def test_an_error_says_what_had_no_room(full: Stage, query: str, asked: dict[str, Any]) -> None:
    _, errors = await full.ask(query, {"input": asked})
    told = errors[0]["extensions"]
    assert (told["code"], told["retryable"]) == ("RATE_LIMITED", True)
    assert told["limit"] == {"limited": "organisation", "name": None, "measure": "requests_per_minute", **COUNTS}
    assert 0 < told["retryAfterMs"] <= 61_000


async def test_so_does_one_of_many(full: Stage) -> None:
    [failure] = await told(full, MANY, inputs=[CALL])
    assert (failure["code"], failure["retryable"]) == ("RATE_LIMITED", True)
    assert 0 < failure["retryAfterMs"] <= 61_000
    assert failure["limit"] == {"limited": "ORGANISATION", "name": None, "measure": "REQUESTS", **COUNTS}


async def test_so_does_the_end_of_a_stream(full: Stage) -> None:
    *_, last = [event_of(event) for event in await full.scene.events()]
    assert isinstance(last, CompletionFailed)
    assert (last.code, last.retryable) == ("RATE_LIMITED", True)
    assert last.limit == LimitReached(
        limited=Limited.ORGANISATION,
        name=None,
        measure=LimitMeasure.REQUESTS,
        limit=Decimal(1),
        used=Decimal(1),
        asked=Decimal(1),
    )
