"""One budget and one request limit over four processes on real Redis: never over, and nobody refused in vain."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from tests.servers.redis import cluster_or_skip, redis_or_skip

from .limited import TOKENS, Callers, Limited, all_is_settled, client_of, most_usd, running_limited
from .processes import Vendor
from .test_cancellation import open_calls, until

PROCESSES = 4


@pytest.fixture(scope="module", params=["single", "cluster"])
def limited(
    request: pytest.FixtureRequest, vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    on_cluster = request.param == "cluster"
    node = cluster_or_skip()[0] if on_cluster else redis_or_skip()
    folder: Path = tmp_path_factory.mktemp("limited")
    with (
        client_of(node.uri, cluster=on_cluster) as client,
        running_limited(folder, vendor, node.uri, client, processes=PROCESSES) as running,
    ):
        yield running


@pytest.fixture
def organisation() -> str:
    return f"limited-{secrets.token_hex(6)}"


async def never_over_and_nobody_in_vain(limited: Limited, vendor: Vendor, organisation: str, calls: int) -> None:
    """So many calls at once twice: first the budget is what they meet, then, with more of it, the request limit."""
    limited.price(organisation)
    one = Callers(limited, f"{organisation}-one")
    limited.price(one.organisation)
    await one.at_once(1)
    cost, most = one.spent(), most_usd()
    callers = Callers(limited, organisation)
    requests, by_money = calls // 2, calls // 4
    budget = by_money * cost + most
    started = time.monotonic()
    limited.limit(organisation, requestsPerMinute=requests, usdPerDay=str(budget))

    await callers.at_once(calls)
    assert len(callers.answered) >= budget // most, "there was room for so many at once"
    assert callers.spent() <= budget
    await until(lambda: all_is_settled(limited.kept(organisation)))
    while callers.spent() + most <= budget:
        refused = len(callers.refused)
        await callers.at_once(1)
        assert len(callers.refused) == refused, "refused, though there was room"
    await callers.at_once(4)
    assert len(callers.answered) == by_money + 1
    for error in callers.refused:
        limit = error["extensions"]["limit"]
        assert (error["extensions"]["code"], limit["measure"]) == ("BUDGET_EXCEEDED", "usd_per_day"), error
        assert Decimal(limit["used"]) + Decimal(limit["asked"]) > budget

    limited.limit(organisation, requestsPerMinute=requests, usdPerDay=str(10**6))
    callers.refused.clear()
    await callers.at_once(calls)
    if time.monotonic() - started < 55:
        assert len(callers.answered) == requests
    for error in callers.refused:
        assert error["extensions"]["code"] == "RATE_LIMITED", error
        assert error["extensions"]["limit"]["used"] == str(requests)
        assert 0 < error["extensions"]["retryAfterMs"] <= 62_000

    await until(lambda: all_is_settled(limited.kept(organisation)))
    booked = await limited.booked(organisation)
    spent = sum((entry.cost or Decimal(0) for entry in booked), Decimal(0))
    assert spent == callers.spent() == len(callers.answered) * cost
    assert limited.kept(organisation).budgets == {"usd_per_day": (spent, Decimal(0))}
    tally = vendor.tally("openai", organisation)
    assert tally["calls"] == tally["answered"] == len(booked) == len(callers.answered)
    for first, after in zip(booked, booked[requests:], strict=False):
        assert after.time - first.time > timedelta(seconds=45), "more than the limit within a minute"
    seen = limited.seen(organisation)
    assert Decimal(seen["USD_A_DAY"]["used"]) == spent
    assert Decimal(seen["USD_A_DAY"]["left"]) == 10**6 - spent


async def test_three_hundred_calls(limited: Limited, vendor: Vendor, organisation: str) -> None:
    await never_over_and_nobody_in_vain(limited, vendor, organisation, 300)


async def test_who_leaves_early_meets_the_budget_all_the_same(
    limited: Limited, vendor: Vendor, organisation: str
) -> None:
    """Each call may have had its four tokens written, and counts with them."""
    limited.price(organisation)
    callers, silence = Callers(limited, organisation), "[[hang=0]]"
    budget = 10 * most_usd(silence)
    limited.limit(organisation, usdPerDay=str(budget))
    headers = {"authorization": f"Bearer {limited.servers[0].token(organisation)}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for server in limited.servers:
            leaving = asyncio.create_task(callers.call(session, server, silence))
            await until(lambda: open_calls(vendor, "openai", organisation))
            leaving.cancel()
            await until(lambda: not open_calls(vendor, "openai", organisation))
        codes: list[str] = []
        while "BUDGET_EXCEEDED" not in codes:
            await callers.call(session, limited.servers[len(codes) % PROCESSES], silence, timeoutMs=50)
            codes.append(callers.refused[-1]["extensions"]["code"])
    assert codes == ["DEADLINE_EXCEEDED"] * (len(codes) - 1) + ["BUDGET_EXCEEDED"]
    await until(lambda: all_is_settled(limited.kept(organisation)))
    booked = await limited.booked(organisation)
    assert {(entry.output_tokens, entry.estimated) for entry in booked} == {(TOKENS, True)}
    assert vendor.tally("openai", organisation)["calls"] <= len(booked), "the deadline may have passed on the way"
    spent = sum(entry.cost or 0 for entry in booked)
    assert budget - most_usd(silence) < spent <= budget
    assert limited.kept(organisation).budgets == {"usd_per_day": (spent, Decimal(0))}


@pytest.mark.soak
async def test_two_thousand_calls(limited: Limited, vendor: Vendor, organisation: str) -> None:
    await never_over_and_nobody_in_vain(limited, vendor, organisation, 2000)
