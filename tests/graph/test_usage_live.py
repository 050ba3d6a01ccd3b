"""`usageLive` and `exportUsage` through the schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from graphql import ExecutionResult

from graph.context import Context
from resolvers.audit import AuditLog
from resolvers.live_usage import MAX_QUERIES_OF_ONE
from resolvers.principal import Principal
from tests.persistence.entries import entry
from tests.resolvers.scene import ACME

from .stage import ALL, EVERY_SCOPE, LATER, Stage, refusals
from .test_usage import MARCH, TOTALS

ADA = replace(ACME, scopes=EVERY_SCOPE, expires_at=LATER)
LIVE = (
    """
subscription ($input: UsageLiveInput!) { usageLive(input: $input) {
  asOf since until totals { ...Totals } buckets { start end totals { ...Totals } }
  groups { other dimensions { field label value } totals { ...Totals } buckets { start totals { attempts } } }
} }
"""
    + TOTALS
)
DAYS = {"last": 3, "bucket": "DAY"}
EXPORT = "mutation ($input: UsageInput!) { exportUsage(input: $input) { url expiresAt } }"


async def subscribed(stage: Stage, principal: Principal = ADA, **given: Any) -> AsyncGenerator[ExecutionResult, None]:
    results = await stage.engine.stream(
        LIVE,
        variables={"input": DAYS | given},
        operation_name=None,
        context=Context(stage.scene.services, principal, "request-1", AuditLog(stage.log)),
        allowed=ALL,
    )
    return cast("AsyncGenerator[ExecutionResult, None]", results)


async def tick(ticks: AsyncGenerator[ExecutionResult, None]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        result = await anext(ticks)
    assert result.errors is None
    assert result.data is not None
    return result.data["usageLive"]


async def test_every_argument_and_every_figure(stage: Stage) -> None:
    now = datetime.now(UTC)
    mine = {"time": now, "labels": {"team": "search"}, "latency_ms": 20}
    stage.scene.store.entries = [entry(**mine), entry(**mine, model="other"), entry(time=now)]
    given = {
        "timeZone": "Asia/Kolkata",
        "groupBy": [{"field": "MODEL"}, {"label": "team"}],
        "filter": {"labels": [{"name": "team", "value": "search"}], "model": ["gpt-4.1"]},
        "intervalMs": 60_000,
    }
    async with aclosing(await subscribed(stage, **given)) as ticks:
        seen = await tick(ticks)
    assert [each["start"][11:] for each in seen["buckets"]] == ["00:00:00+05:30"] * 3
    since, until = (datetime.fromisoformat(seen[name]) for name in ("since", "until"))
    assert until - since == timedelta(days=3)
    assert since < now < until
    assert now <= datetime.fromisoformat(seen["asOf"]) <= datetime.now(UTC)
    (group,) = seen["groups"]
    assert [each["value"] for each in group["dimensions"]] == ["gpt-4.1", "search"]
    assert seen["totals"] == group["totals"] == seen["buckets"][-1]["totals"]
    assert (seen["totals"]["attempts"], seen["totals"]["cost"]) == (1, "0.00304")
    assert seen["totals"]["latencyMs"] == {"p50": 20, "p95": 20, "p99": 20}


async def test_a_change_is_told_to_all_who_listen(stage: Stage) -> None:
    async with (
        aclosing(await subscribed(stage, intervalMs=1_000)) as one,
        aclosing(await subscribed(stage, replace(ADA, subject="bob"), intervalMs=1_000)) as two,
    ):
        assert (await tick(one))["totals"]["completions"] == 0
        assert (await tick(two))["totals"]["completions"] == 0
        stage.scene.store.entries.append(entry(time=datetime.now(UTC)))
        seen = await tick(one)
        assert seen["totals"]["completions"] == 1
        assert await tick(two) == seen


async def test_no_null_is_a_default_of_its_own(stage: Stage) -> None:
    nulls = {"timeZone": None, "groupBy": None, "filter": None, "intervalMs": None}
    async with aclosing(await subscribed(stage, **nulls)) as ticks:
        assert (await tick(ticks))["groups"] == []


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"last": 0}, ["input", "last"]),
        ({"last": 201}, ["input", "last"]),
        ({"intervalMs": 10}, ["input", "intervalMs"]),
        ({"timeZone": ""}, ["input", "timeZone"]),
        ({"groupBy": [{"field": "MODEL"}, {"field": "MODEL"}]}, ["input", "groupBy", 1]),
        ({"bucket": None}, None),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named(stage: Stage, given: dict[str, Any], path: list[str] | None) -> None:
    _, errors = await stage.ask(LIVE, {"input": DAYS | given})
    assert refusals(errors) == [("BAD_USER_INPUT", path)]


async def test_too_many_queries_at_once(stage: Stage) -> None:
    held = [await subscribed(stage, last=last) for last in range(1, MAX_QUERIES_OF_ONE + 1)]
    for each in held:
        await tick(each)
    _, errors = await stage.ask(LIVE, {"input": {"last": 1, "bucket": "HOUR"}})
    assert refusals(errors) == [("RATE_LIMITED", None)]
    for each in held:
        await each.aclose()


async def test_it_ends_with_the_token(stage: Stage) -> None:
    async with aclosing(await subscribed(stage, replace(ADA, expires_at=1.0))) as ticks:
        (error,) = (await anext(ticks)).errors or ()
        assert getattr(error.original_error, "code", None) == "UNAUTHENTICATED"


async def test_a_link(stage: Stage) -> None:
    data, errors = await stage.ask(EXPORT, {"input": MARCH | {"groupBy": [{"field": "MODEL"}]}})
    assert errors == []
    assert data == {"exportUsage": {"url": "/usage.csv?acme", "expiresAt": "2026-03-02T00:00:00+00:00"}}
    data, errors = await stage.ask(EXPORT, {"input": MARCH | {"timeZone": "Mars"}})
    assert data == {"exportUsage": None}
    assert refusals(errors) == [("BAD_USER_INPUT", ["input", "timeZone"])]
