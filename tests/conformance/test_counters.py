"""What every Counters keeps to: in process, on one Redis, on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from persistence.memory_counters import MemoryCounters
from persistence.ports import Counters
from persistence.redis.server import open_redis
from persistence.shared_records import Demand, Shortage
from tests.servers.redis import cluster_or_skip, redis_or_skip

OPERATORS = ("one", "two", "three", "four", "five", "six")
"""In a cluster of three they are in slots of all its nodes."""


@dataclass(frozen=True)
class Counting:
    """`ours` and `theirs`: as two processes see it; in process there is one. `later` lets time pass."""

    ours: Counters
    theirs: Counters
    later: Callable[[float], Awaitable[object]]


@asynccontextmanager
async def in_process() -> AsyncIterator[Counting]:
    now = [1000.0]

    async def later(seconds: float) -> None:
        now[0] += seconds

    counters = MemoryCounters(lambda: now[0])
    yield Counting(counters, counters, later)


@asynccontextmanager
async def on(uri: str, other: str) -> AsyncIterator[Counting]:
    async with open_redis(uri) as ours, open_redis(other) as theirs:
        yield Counting(ours.counters, theirs.counters, asyncio.sleep)


@pytest.fixture(params=["memory", "redis", "cluster"])
async def counting(request: pytest.FixtureRequest) -> AsyncIterator[Counting]:
    opening: AbstractAsyncContextManager[Counting]
    if request.param == "memory":
        opening = in_process()
    elif request.param == "redis":
        node = redis_or_skip()
        opening = on(node.uri, node.uri)
    else:
        nodes = cluster_or_skip()
        opening = on(nodes[0].uri, nodes[2].uri)
    async with opening as found:
        yield found


@pytest.fixture
def demand() -> Demand:
    return Demand(uuid4().hex, amount=1, limit=10, seconds=60)


async def left(counters: Counters, demand: Demand, organisation: str = "acme") -> int:
    shortage = await counters.take(organisation, [replace(demand, amount=demand.limit + 1)])
    assert shortage is not None
    return shortage.left


def operators(demand: Demand) -> list[Demand]:
    return [replace(demand, key=f"{demand.key}-{name}", of_operator=True) for name in OPERATORS]


async def test_takes_until_there_is_nothing_left(counting: Counting, demand: Demand) -> None:
    assert await counting.ours.take("acme", [replace(demand, amount=7)]) is None
    assert await counting.theirs.take("acme", [replace(demand, amount=3)]) is None
    shortage = await counting.ours.take("acme", [demand])
    assert shortage == Shortage(demand, 0, shortage.seconds if shortage else 0)
    assert 50 < shortage.seconds <= 60


async def test_a_shortage_tells_what_is_left(counting: Counting, demand: Demand) -> None:
    much = replace(demand, amount=11)
    assert await counting.ours.take("acme", [much]) == Shortage(much, 10, 0.0)
    await counting.ours.take("acme", [replace(demand, amount=7)])
    shortage = await counting.theirs.take("acme", [replace(demand, amount=4)])
    assert shortage is not None
    assert shortage.left == 3
    lower = replace(demand, limit=5)
    shortage = await counting.theirs.take("acme", [lower])
    assert shortage is not None
    assert (shortage.demand, shortage.left) == (lower, 0)


async def test_many_takes_at_once_get_all_there_is_and_no_more(counting: Counting, demand: Demand) -> None:
    demands = [replace(demand, limit=100), replace(demand, key=f"{demand.key}2", limit=1000)]
    demands += [replace(one, limit=1000) for one in operators(demand)]
    takes = [counters.take("acme", demands) for counters in [counting.ours, counting.theirs] * 100]
    answers = await asyncio.gather(*takes)
    assert answers.count(None) == 100
    assert await left(counting.ours, demands[0]) == 0
    assert [await left(counting.theirs, one) for one in demands[1:]] == [900] * 7


async def test_an_operators_limit_is_never_passed_by_takes_at_once(counting: Counting, demand: Demand) -> None:
    shared = replace(demand, limit=50, of_operator=True)
    takes = [
        counters.take(f"org-{number % 7}", [replace(demand, limit=1000), shared])
        for number, counters in enumerate([counting.ours, counting.theirs] * 60)
    ]
    answers = await asyncio.gather(*takes)
    assert answers.count(None) == 50
    assert {answer.demand for answer in answers if answer is not None} == {shared}
    own = [1000 - await left(counting.ours, replace(demand, limit=1000), f"org-{number}") for number in range(7)]
    assert sum(own) == 50, "what the operator had no room for is given back"


async def test_all_or_nothing(counting: Counting, demand: Demand) -> None:
    others = [replace(demand, key=f"{demand.key}-{number}") for number in range(3)]
    full = replace(others[1], amount=10)
    assert await counting.ours.take("acme", [full]) is None
    shortage = await counting.theirs.take("acme", [demand, *others])
    assert shortage is not None
    assert shortage.demand == others[1]
    assert [await left(counting.ours, one) for one in (demand, others[0], others[2])] == [10, 10, 10]


@pytest.mark.parametrize("full", range(len(OPERATORS)))
async def test_where_the_operator_has_no_room_nothing_is_taken(counting: Counting, demand: Demand, full: int) -> None:
    shared = operators(demand)
    await counting.ours.take("globex", [replace(shared[full], amount=10)])
    shortage = await counting.theirs.take("acme", [*shared, demand])
    assert shortage is not None
    assert shortage.demand == shared[full]
    assert [await left(counting.ours, one) for one in (demand, *shared)] == [
        10,
        *(0 if number == full else 10 for number in range(len(shared))),
    ]


async def test_the_organisations_shortage_comes_before_the_operators(counting: Counting, demand: Demand) -> None:
    shared = replace(demand, of_operator=True)
    await counting.ours.take("acme", [replace(demand, amount=10), replace(shared, amount=10)])
    shortage = await counting.ours.take("acme", [shared, demand])
    assert shortage is not None
    assert shortage.demand == demand


async def test_the_same_key_twice_counts_twice(counting: Counting, demand: Demand) -> None:
    half = replace(demand, amount=6)
    shortage = await counting.ours.take("acme", [half, half])
    assert shortage is not None
    assert await left(counting.ours, demand) == 10
    assert await counting.ours.take("acme", [replace(demand, amount=5)] * 2) is None
    assert await left(counting.ours, demand) == 0


async def test_nothing_asked_is_nothing_taken(counting: Counting, demand: Demand) -> None:
    assert await counting.ours.take("acme", []) is None
    await counting.ours.give("acme", [])
    assert await counting.ours.take("acme", [replace(demand, amount=0)]) is None
    shortage = await counting.ours.take("acme", [replace(demand, amount=11)])
    assert shortage is not None
    assert shortage.seconds == 0, "no window has begun"


async def test_a_window_begins_with_the_first_take_and_then_anew(counting: Counting, demand: Demand) -> None:
    short = replace(demand, amount=4, seconds=0.3)
    await counting.later(0.2)
    assert await counting.ours.take("acme", [short]) is None
    assert await counting.theirs.take("acme", [short]) is None
    shortage = await counting.ours.take("acme", [short])
    assert shortage is not None
    assert 0 < shortage.seconds <= 0.3
    await counting.later(shortage.seconds + 0.005)
    assert await counting.ours.take("acme", [short]) is None
    assert await left(counting.ours, short) == 6


async def test_what_is_given_back_can_be_taken(counting: Counting, demand: Demand) -> None:
    both = [replace(demand, amount=10), replace(demand, amount=10, of_operator=True)]
    assert await counting.ours.take("acme", both) is None
    await counting.theirs.give("acme", [replace(one, amount=4) for one in both])
    assert [await left(counting.ours, one) for one in both] == [4, 4]


async def test_giving_goes_never_below_nothing(counting: Counting, demand: Demand) -> None:
    await counting.ours.give("acme", [demand])
    assert await left(counting.ours, demand) == 10
    await counting.ours.take("acme", [demand])
    await counting.theirs.give("acme", [replace(demand, amount=5)])
    assert await left(counting.ours, demand) == 10
    assert await counting.ours.take("acme", [replace(demand, amount=10)]) is None
    assert await left(counting.ours, demand) == 0


async def test_many_gives_at_once_leave_what_was_kept(counting: Counting, demand: Demand) -> None:
    wide = replace(demand, limit=1000)

    async def reserve(counters: Counters) -> None:
        assert await counters.take("acme", [replace(wide, amount=5)]) is None
        await counters.give("acme", [replace(wide, amount=3)], seconds_ago=0.0)

    await asyncio.gather(*(reserve(counters) for counters in [counting.ours, counting.theirs] * 50))
    assert await left(counting.ours, wide) == 800


async def test_what_began_anew_meanwhile_stays_as_it_is(counting: Counting, demand: Demand) -> None:
    short, long = replace(demand, seconds=0.2), replace(demand, key=f"{demand.key}2")
    assert await counting.ours.take("acme", [short, long]) is None
    await counting.later(0.25)
    anew = replace(demand, amount=3)
    assert await counting.theirs.take("acme", [anew]) is None
    await counting.ours.give("acme", [long], seconds_ago=0.2)
    await counting.ours.give("acme", [demand], seconds_ago=30)
    assert await left(counting.ours, demand) == 7
    assert await left(counting.ours, long) == 10


async def test_tenants_and_odd_names_never_meet(counting: Counting, demand: Demand) -> None:
    key = demand.key
    owners = ["acme", "{acme}", "acme}", "}", "{}", "", "%", "%7D", "a:b", "é"]
    for organisation in owners:
        for name in (key, f"{{{key}}}", f"}}:counter:{key}"):
            assert await counting.ours.take(organisation, [replace(demand, key=name, amount=10)]) is None
    operator = [replace(demand, key=f"{name}{key}", of_operator=True) for name in ("", "{acme}:counter:", "{}")]
    for one in operator:
        assert await counting.ours.take("acme", [replace(one, amount=10)]) is None
    assert await left(counting.theirs, operator[0], "globex") == 0


async def test_amounts_are_exact(counting: Counting, demand: Demand) -> None:
    large = replace(demand, amount=2**52 + 1, limit=2**53 - 2)
    assert await counting.ours.take("acme", [large]) is None
    assert await left(counting.ours, large) == 2**52 - 3
    await counting.ours.give("acme", [replace(large, amount=2**52)])
    assert await left(counting.ours, large) == 2**53 - 3
