"""`usage`: every argument is translated, every figure comes through, what is wrong is named by its path."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from persistence.records import Outcome
from tests.persistence.entries import at, entry

from .stage import Stage, refusals

TOTALS = """
fragment Totals on UsageTotals {
  completions attempts failedAttempts errorRate inputTokens outputTokens cachedInputTokens cacheWriteTokens
  reasoningTokens cost unpriced estimated latencyMs { p50 p95 p99 } timeToFirstTokenMs { p50 p95 p99 }
  outputTokensPerSecond
}
"""
USAGE = (
    """
query ($input: UsageInput!) { usage(input: $input) {
  since until asOf totals { ...Totals } buckets { start end totals { ...Totals } }
  groups { other dimensions { field label value } totals { ...Totals } buckets { start totals { attempts } } }
} }
"""
    + TOTALS
)
MARCH = {"since": "2026-03-01T00:00:00Z", "until": "2026-03-02T00:00:00Z"}


async def ask(stage: Stage, **given: Any) -> dict[str, Any]:
    data, errors = await stage.ask(USAGE, {"input": MARCH | given})
    assert errors == []
    assert data is not None
    return data["usage"]


async def test_every_figure(stage: Stage) -> None:
    tokens = {"cached_input_tokens": 7, "cache_write_tokens": 5, "reasoning_tokens": 3}
    failed = entry(outcome=Outcome.FAILED, output_tokens=0, cost=None, estimated=True, latency_ms=1000)
    stage.scene.store.entries = [
        failed,
        *(entry(time=at(n), latency_ms=20, time_to_first_token_ms=10, input_tokens=2**40, **tokens) for n in range(3)),
    ]
    report = await ask(stage)
    assert (report["since"], report["until"]) == ("2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00")
    assert report["asOf"].endswith("+00:00")
    assert (report["buckets"], report["groups"]) == ([], [])
    long = report["totals"]["latencyMs"].pop("p95")
    assert report["totals"]["latencyMs"].pop("p99") == long == pytest.approx(1000, rel=0.05)
    assert report["totals"] == {
        "completions": 4,
        "attempts": 4,
        "failedAttempts": 1,
        "errorRate": 0.25,
        "inputTokens": 3 * 2**40 + 1200,
        "outputTokens": 240,
        "cachedInputTokens": 21,
        "cacheWriteTokens": 15,
        "reasoningTokens": 9,
        "cost": "0.00912",
        "unpriced": 1,
        "estimated": 1,
        "latencyMs": {"p50": 20},
        "timeToFirstTokenMs": {"p50": 10, "p95": 10, "p99": 10},
        "outputTokensPerSecond": 4000,
    }


async def test_nothing_used(stage: Stage) -> None:
    totals = (await ask(stage))["totals"]
    nothing = ("errorRate", "latencyMs", "timeToFirstTokenMs", "outputTokensPerSecond")
    assert [totals.pop(name) for name in nothing] == [None] * 4
    assert totals.pop("cost") == "0"
    assert set(totals.values()) == {0}


async def test_buckets_and_groups(stage: Stage) -> None:
    stage.scene.store.entries = [
        entry(config_version=3, labels={"team": "search"}),
        entry(config_version=3, labels={"team": "search"}, time=at(3_600_000)),
        entry(cost=Decimal(1)),
    ]
    by = [{"field": "CONFIG_VERSION"}, {"label": "team"}]
    report = await ask(stage, bucket="HOUR", timeZone="Asia/Kolkata", groupBy=by)
    assert len(report["buckets"]) == 25
    assert report["buckets"][0]["start"] == "2026-03-01T05:00:00+05:30"
    assert report["buckets"][-1]["end"] == "2026-03-02T06:00:00+05:30"
    largest, other = report["groups"]
    assert largest["dimensions"] == [
        {"field": "CONFIG_VERSION", "label": None, "value": "3"},
        {"field": None, "label": "team", "value": "search"},
    ]
    assert [each["value"] for each in other["dimensions"]] == [None, None]
    assert [(each["other"], each["totals"]["attempts"]) for each in report["groups"]] == [(False, 2), (False, 1)]
    used = {each["start"]: each["totals"]["attempts"] for each in largest["buckets"] if each["totals"]["attempts"]}
    assert used == {"2026-03-01T17:00:00+05:30": 1, "2026-03-01T18:00:00+05:30": 1}
    assert [each["start"] for each in largest["buckets"]] == [each["start"] for each in report["buckets"]]


async def test_what_is_beyond_the_largest_groups(stage: Stage) -> None:
    stage.scene.store.entries = [entry(end_user=f"u{n}") for n in range(1002)]
    report = await ask(stage, groupBy=[{"field": "END_USER"}])
    last = report["groups"][-1]
    assert (len(report["groups"]), last["other"], last["dimensions"], last["totals"]["attempts"]) == (1001, True, [], 2)


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        ({"provider": ["groq", "x"]}, {"provider": "groq"}),
        ({"model": ["m"]}, {"model": "m"}),
        ({"config": ["c"]}, {"config": "c"}),
        ({"configVersion": [7]}, {"config_version": 7}),
        ({"principal": ["p"]}, {"principal": "p"}),
        ({"endUser": ["u"]}, {"end_user": "u"}),
        ({"outcome": ["FAILED", "ABANDONED"]}, {"outcome": Outcome.ABANDONED}),
        ({"labels": [{"name": "team", "value": "search"}]}, {"labels": {"team": "search", "other": ""}}),
    ],
    ids=str,
)
async def test_filters(stage: Stage, given: dict[str, Any], changes: dict[str, Any]) -> None:
    stage.scene.store.entries = [entry(), entry(**changes)]
    assert (await ask(stage, filter=given))["totals"]["attempts"] == 1
    assert (await ask(stage, filter=None, bucket=None, groupBy=None))["totals"]["attempts"] == 2


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"since": "2026-03-01T00:00:00"}, ["input", "since"]),
        ({"until": "2026-03-01T00:00:00Z"}, ["input", "until"]),
        ({"timeZone": "Europe/Nowhere"}, ["input", "timeZone"]),
        ({"timeZone": ""}, ["input", "timeZone"]),
        ({"until": "2027-03-01T00:00:00Z", "bucket": "MINUTE"}, ["input", "bucket"]),
        ({"groupBy": [{"field": "MODEL"}, {"field": "MODEL"}]}, ["input", "groupBy", 1]),
        ({"groupBy": [{"label": ""}]}, ["input", "groupBy", 0, "label"]),
        ({"groupBy": [{"field": "COLOUR"}]}, None),
        ({"groupBy": [{"field": "MODEL", "label": "team"}]}, None),
        ({"groupBy": [{}]}, None),
    ],
    ids=str,
)
async def test_what_is_wrong_is_named(stage: Stage, given: dict[str, Any], path: list[str] | None) -> None:
    _, errors = await stage.ask(USAGE, {"input": MARCH | given})
    assert refusals(errors) == [("BAD_USER_INPUT", path)]
