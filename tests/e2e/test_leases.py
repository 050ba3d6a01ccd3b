"""Processes that are killed or frozen, a Redis that is killed or forgets: every call is booked once, nothing stays
reserved, and no budget is exceeded."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from tests.servers.freezing import frozen
from tests.servers.redis import Node, redis_or_skip, running_redis

from .documents import USAGE
from .limited import PROMPT, Callers, Limited, all_is_settled, client_of, most_usd, running_limited
from .processes import Server, Vendor
from .test_cancellation import open_calls, until
from .test_prices import ask

PLENTY = 10**6
LONG_S = 60.0


@dataclass
class Pair(Limited):
    """Two processes on one Redis."""

    node: Node | None = None


@pytest.fixture(scope="module")
def pair(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    redis_or_skip()
    folder: Path = tmp_path_factory.mktemp("pair")
    with (
        running_redis() as node,
        client_of(node.uri) as client,
        running_limited(folder, vendor, node.uri, client, processes=2) as running,
    ):
        yield Pair(**vars(running), node=node)


@pytest.fixture
def organisation(pair: Pair) -> str:
    name = f"leased-{secrets.token_hex(6)}"
    pair.price(name)
    return name


def session(limited: Limited, organisation: str) -> aiohttp.ClientSession:
    headers = {"authorization": f"Bearer {limited.servers[0].token(organisation)}"}
    return aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=150))


async def killed_at_work(victim: Server, limited: Callers, free: Callers, vendor: Vendor) -> None:
    """Calls of two organisations, some of them answered, and streams; in the midst of them it is killed."""
    waiting = open_calls(vendor, "openai", free.organisation)

    async def call(callers: Callers, asking: aiohttp.ClientSession, prompt: str) -> None:
        try:
            while await callers.call(asking, victim, prompt):
                pass
        except (aiohttp.ClientError, ConnectionError):
            assert victim.process.poll() is not None or victim.process.wait(10)

    async with session(limited.limited, limited.organisation) as one, session(free.limited, free.organisation) as other:
        calls = [asyncio.create_task(call(limited, one, f"[[delay={random.randint(0, 200)}]]")) for _ in range(6)]
        calls += [asyncio.create_task(call(free, other, "[[hang=0]]")) for _ in range(2)]
        await until(lambda: open_calls(vendor, "openai", free.organisation) == waiting + 2)
        streams = [await limited.streaming(one, victim, "[[tokens=4]] [[hang=2]]") for _ in range(2)]
        await asyncio.sleep(0.5 + random.random() / 4)  # what no limit has told of is told within a tenth of a second
        victim.process.kill()
        await asyncio.gather(*calls)
        for stream in streams:
            stream.close()


async def kill_again_and_again(pair: Pair, vendor: Vendor, organisation: str, folder: Path, kills: int) -> None:
    """Every other time the disk goes with the process, else the next one has it, and books what is noted there."""
    limited, free = Callers(pair, organisation), Callers(pair, f"{organisation}-free")
    pair.limit(organisation, requestsPerMinute=PLENTY, usdPerDay=str(PLENTY), streams=1000)
    for number in range(kills):
        with pair.another(folder) as victim:
            await killed_at_work(victim, limited, free, vendor)
        if number % 2:
            shutil.rmtree(folder)
        pair.let_leases_end(organisation, free.organisation)

    def all_found() -> bool:
        pair.let_leases_end(organisation, free.organisation)
        return all_is_settled(pair.kept(organisation)) and all_is_settled(pair.kept(free.organisation))

    await until(all_found, within_s=LONG_S)
    for callers in (limited, free):
        booked = await pair.booked(callers.organisation)
        tally = vendor.tally("openai", callers.organisation)
        answered = {each["id"] for each in callers.answered}
        abandoned = [entry for entry in booked if entry.outcome == "abandoned"]
        assert answered <= {entry.completion for entry in booked if entry.outcome == "succeeded"}
        assert len({(entry.completion, entry.attempt) for entry in booked}) == len(booked) >= tally["calls"]
        assert all(entry.estimated and entry.output_tokens == 0 for entry in abandoned)
        assert not any(entry.estimated for entry in booked if entry.outcome == "succeeded")
        assert len(abandoned) >= 2 * kills
    assert len(booked) == tally["calls"], "of those without a limit none is lost, and none made up"
    kept = pair.kept(organisation)
    spent = sum((entry.cost or Decimal(0) for entry in await pair.booked(organisation)), Decimal(0))
    assert (kept.budgets, kept.places) == ({"usd_per_day": (spent, Decimal(0))}, 0)
    assert pair.seen(organisation)["STREAMS"]["used"] == "0"


async def test_three_kills(pair: Pair, vendor: Vendor, organisation: str, tmp_path: Path) -> None:
    await kill_again_and_again(pair, vendor, organisation, tmp_path / "victim", 3)


@pytest.mark.soak
async def test_a_hundred_kills(pair: Pair, vendor: Vendor, organisation: str, tmp_path: Path) -> None:
    await kill_again_and_again(pair, vendor, organisation, tmp_path / "victim", 100)


async def test_who_was_slow_and_taken_for_dead_ends_with_the_vendors_figures(
    pair: Pair, vendor: Vendor, organisation: str
) -> None:
    callers = Callers(pair, organisation)
    pair.limit(organisation, usdPerDay=str(PLENTY))
    slow = pair.servers[0]
    async with session(pair, organisation) as asking:
        calling = asyncio.create_task(callers.call(asking, slow, "[[tokens=3]] [[delay=1500]]"))
        await until(lambda: open_calls(vendor, "openai", organisation) == 1)
        with frozen([slow.process.pid]):
            pair.let_leases_end(organisation)
            booked = await pair.booked_at_last(organisation, 1)
            assert [(entry.outcome, entry.estimated) for entry in booked] == [("abandoned", True)]
        assert await calling
    booked = await pair.booked_at_last(organisation, 2)
    tally = vendor.tally("openai", organisation)
    assert sum(entry.output_tokens for entry in booked) == tally["output_tokens"] == 3
    assert sum(entry.input_tokens for entry in booked) == tally["input_tokens"]
    spent = callers.spent()
    assert sum(entry.cost or 0 for entry in booked) == spent
    await until(lambda: pair.kept(organisation).budgets == {"usd_per_day": (spent, Decimal(0))})
    between = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00Z"}
    totals = ask(slow, slow.token(organisation), USAGE, input=between)["totals"]
    assert (totals["completions"], totals["attempts"], totals["estimated"]) == (1, 1, 0)


async def test_after_redis_has_forgotten_all_a_budget_is_what_the_ledger_says(
    pair: Pair, vendor: Vendor, organisation: str
) -> None:
    """There is room for three calls, which run while it forgets. Who asks meanwhile finds no room, though nothing is
    booked yet."""
    callers = Callers(pair, organisation)
    await callers.at_once(1)
    long = "[[tokens=4]] [[delay=17000]]"
    budget = callers.spent() + 3 * most_usd(long)
    pair.limit(organisation, usdPerDay=str(budget))
    running = asyncio.create_task(callers.at_once(3, long))
    await until(lambda: open_calls(vendor, "openai", organisation) == 3)
    pair.redis.flushall()
    await callers.at_once(4)
    assert [error["extensions"]["code"] for error in callers.refused] == ["BUDGET_EXCEEDED"] * 4
    assert not running.done(), "they were refused because of what runs"
    await running
    await until(lambda: all_is_settled(pair.kept(organisation)))
    spent = sum(entry.cost or 0 for entry in await pair.booked(organisation))
    assert spent == callers.spent() <= budget
    assert pair.kept(organisation).budgets == {"usd_per_day": (spent, Decimal(0))}
    await callers.at_once(1)
    assert len(callers.answered) == 5


async def test_while_the_ledger_is_away_a_budget_that_was_lost_is_closed(
    pair: Pair, vendor: Vendor, organisation: str
) -> None:
    callers = Callers(pair, organisation)
    pair.limit(organisation, usdPerDay=str(PLENTY))
    await callers.at_once(2)
    pair.postgres.stop()
    try:
        await callers.at_once(2)
        assert len(callers.answered) == 4, "what is counted already needs no ledger"
        pair.redis.flushall()
        await callers.at_once(2)
        assert [error["extensions"]["code"] for error in callers.refused] == ["SERVICE_UNAVAILABLE"] * 2
        assert vendor.tally("openai", organisation)["calls"] == 4
    finally:
        pair.postgres.start()
    await callers.answered_at_last()


async def test_a_budget_that_is_set_anew_counts_what_was_spent_without_it(
    pair: Pair, vendor: Vendor, organisation: str
) -> None:
    """And what ran when it was set, on either process."""
    callers = Callers(pair, organisation)
    pair.limit(organisation, usdPerDay=str(PLENTY))
    await callers.at_once(4)
    pair.limit(organisation, requestsPerMinute=PLENTY)
    await callers.at_once(4)
    running = asyncio.create_task(callers.at_once(4, PROMPT.replace("20", "4000")))
    await until(lambda: open_calls(vendor, "openai", organisation) == 4)
    pair.limit(organisation, usdPerDay=str(PLENTY))
    await callers.at_once(2)
    assert not running.done()
    await running
    assert len(callers.answered) == 14
    whole = {"usd_per_day": (callers.spent(), Decimal(0))}
    await until(lambda: pair.kept(organisation).budgets == whole)


async def test_while_redis_is_away(pair: Pair, vendor: Vendor, organisation: str) -> None:
    """Requests are counted by each process, which has its share; a budget is closed. Then both are as before."""
    node = pair.node
    assert node is not None
    poor, rich = Callers(pair, organisation), Callers(pair, f"{organisation}-rich")
    pair.price(rich.organisation)
    pair.limit(organisation, requestsPerMinute=8)
    pair.limit(rich.organisation, usdPerDay=str(PLENTY))
    running = asyncio.create_task(rich.at_once(2, PROMPT.replace("20", "2000")))
    await until(lambda: open_calls(vendor, "openai", rich.organisation) == 2)
    node.kill()
    try:
        await poor.at_once(20)
        assert len(poor.answered) == 8
        assert {error["extensions"]["code"] for error in poor.refused} == {"RATE_LIMITED"}
        await rich.at_once(2)
        assert [error["extensions"]["code"] for error in rich.refused] == ["SERVICE_UNAVAILABLE"] * 2
        assert all(error["extensions"]["retryAfterMs"] > 0 for error in rich.refused)
        await running
        assert len(rich.answered) == vendor.tally("openai", rich.organisation)["calls"] == 2
    finally:
        node.start()
    await rich.answered_at_last()
    await until(lambda: all_is_settled(pair.kept(rich.organisation)))
    assert pair.kept(rich.organisation).budgets == {"usd_per_day": (rich.spent(), Decimal(0))}
    await until(lambda: pair.seen(organisation)["REQUESTS"]["used"] == "0")
    await poor.at_once(20)
    assert len(poor.answered) == 16, "what the processes had counted by themselves is theirs"


async def test_how_limits_stand_is_seen_in_every_process(pair: Pair, vendor: Vendor, organisation: str) -> None:
    callers, prompt = Callers(pair, organisation), "[[tokens=4]] [[hang=2]]"
    pair.limit(organisation, requestsPerMinute=5, usdPerDay="100", streams=2)

    def seen(name: str) -> list[tuple[Decimal, ...]]:
        """The limit, what is used, and what is left, by each process."""
        told = [pair.seen(organisation, number)[name] for number in range(2)]
        return [tuple(Decimal(each[field]) for field in ("limit", "used", "left")) for each in told]

    async with session(pair, organisation) as asking:
        calling = asyncio.create_task(callers.call(asking, pair.servers[0], prompt))
        await until(lambda: open_calls(vendor, "openai", organisation) == 1)
        assert seen("REQUESTS") == [(5, 1, 4)] * 2
        assert seen("STREAMS") == [(2, 0, 2)] * 2
        assert seen("USD_A_DAY") == [(100, most_usd(prompt), 100 - most_usd(prompt))] * 2
        stream = await callers.streaming(asking, pair.servers[1], prompt)
        await until(lambda: open_calls(vendor, "openai", organisation) == 2)
        assert seen("REQUESTS") == [(5, 2, 3)] * 2
        assert seen("STREAMS") == [(2, 1, 1)] * 2
        calling.cancel()
        stream.close()
    await until(lambda: all_is_settled(pair.kept(organisation)))
    spent = sum((entry.cost or Decimal(0) for entry in await pair.booked(organisation)), Decimal(0))
    assert seen("STREAMS") == [(2, 0, 2)] * 2
    assert seen("USD_A_DAY") == [(100, spent, 100 - spent)] * 2


async def test_streams_at_once(pair: Pair, vendor: Vendor, organisation: str) -> None:
    """Two over both processes: held for as long as they run, free when their client leaves."""
    callers = Callers(pair, organisation)
    pair.limit(organisation, streams=2)
    prompt = "[[tokens=4]] [[hang=2]]"

    async def refused(asking: aiohttp.ClientSession) -> bool:
        events = await (await callers.streaming(asking, pair.servers[1], prompt)).text()
        return "CompletionFailed" in events and "RATE_LIMITED" in events

    async with session(pair, organisation) as asking:
        first, second = [await callers.streaming(asking, server, prompt) for server in pair.servers]
        await until(lambda: open_calls(vendor, "openai", organisation) == 2)
        assert await refused(asking)
        assert pair.seen(organisation)["STREAMS"]["used"] == "2"
        first.close()
        await until(lambda: pair.seen(organisation)["STREAMS"]["used"] == "1")
        third = await callers.streaming(asking, pair.servers[1], prompt)
        await until(lambda: open_calls(vendor, "openai", organisation) == 2)
        assert await refused(asking)
        second.close()
        third.close()
    await until(lambda: all_is_settled(pair.kept(organisation)))
    assert pair.kept(organisation).places == 0
