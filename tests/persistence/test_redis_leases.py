"""Leases: what a process has under way is found when it is not heard of any more. On one Redis, on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import pytest
import redis

from persistence.redis.server import RedisServer, open_redis
from persistence.reservation_records import Allowance, Enrolment, Expired, Kept, Kind, Opening, Refused, Settled
from tests.persistence.reservations import begun, opened
from tests.servers.redis import cluster_or_skip, redis_or_skip, running_redis

LEASE_S = 30.0
SHORT_S = 0.2
LATER_S = 0.25
GRACE_S = 10.0


@dataclass(frozen=True)
class Sharing:
    """Two processes at one store."""

    ours: RedisServer
    theirs: RedisServer


@pytest.fixture(params=["redis", "cluster"])
async def sharing(request: pytest.FixtureRequest) -> AsyncIterator[Sharing]:
    nodes = [redis_or_skip()] * 3 if request.param == "redis" else cluster_or_skip()
    async with open_redis(nodes[0].uri) as ours, open_redis(nodes[2].uri) as theirs:
        yield Sharing(ours, theirs)


@pytest.fixture
def org() -> str:
    return f"}} {{{uuid4().hex}}} %{{"


WINDOW = Allowance("requests", Kind.WINDOW, 4, 10, 60.0)
BUDGET = Allowance("day", Kind.BUDGET, 9, 100, 1000.0)
PLACE = Allowance("streams", Kind.PLACES, 1, 2, 60.0, "a")
ALL = (WINDOW, BUDGET, PLACE)


async def reserved(server: RedisServer, org: str, name: str, *asked: Allowance, lease_s: float = LEASE_S) -> None:
    assert await server.reservations.reserve(org, name, asked, lease_s=lease_s, note=f"of {name}") is None


async def used(server: RedisServer, org: str) -> list[int | None]:
    return list(await server.reservations.used(org, ALL))


async def found(server: RedisServer, org: str, *, limit: int = 10) -> Sequence[Expired]:
    return await server.leases.expired(org, lease_s=LEASE_S, limit=limit)


async def test_a_lease_that_is_over_is_told_once_for_as_long(sharing: Sharing, org: str) -> None:
    ours, theirs = sharing.ours, sharing.theirs
    await begun(ours.reservations, org, BUDGET, 0)
    await reserved(ours, org, "a", *ALL, lease_s=SHORT_S)
    await reserved(ours, org, "b")
    await asyncio.sleep(LATER_S)
    assert await used(theirs, org) == [4, 9, 0], "its place is free"
    assert await found(theirs, org) == [Expired("a", "of a", ALL)]
    assert await found(ours, org) == []
    for _ in range(2):
        assert await theirs.reservations.settle(org, [Settled("a", ALL, [4, 2, 0], found=True)]) == []
        assert await used(ours, org) == [4, 2, 0], "settled once"


async def test_who_was_taken_for_dead_hears_of_it(sharing: Sharing, org: str) -> None:
    """Before and after whoever found it has settled it: the owner counts nothing."""
    ours, theirs = sharing.ours, sharing.theirs
    await begun(ours.reservations, org, BUDGET, 0)
    await reserved(ours, org, "a", *ALL, lease_s=0.001)
    await asyncio.sleep(0.01)
    assert len(await found(theirs, org)) == 1
    assert await ours.leases.prolong(org, ["a"], lease_s=LEASE_S) == []
    owners = Settled("a", ALL, [4, 5, 0])
    assert await ours.reservations.settle(org, [owners]) == ["a"]
    assert await used(ours, org) == [4, 9, 0]
    await theirs.reservations.settle(org, [Settled("a", ALL, [4, 2, 0], found=True)])
    assert await ours.reservations.settle(org, [owners, Settled("b", [BUDGET], [1])]) == ["a"]
    assert await used(ours, org) == [4, 3, 0]
    await ours.reservations.keep(org, [Kept("a", "of a", ALL)], lease_s=LEASE_S)
    assert await used(ours, org) == [4, 3, 0], "it is not held again"


async def test_what_was_given_up_and_comes_late_holds_nothing(sharing: Sharing, org: str) -> None:
    """A call that got no answer in time may reach its server after all, and twice."""
    await begun(sharing.ours.reservations, org, BUDGET, 0)
    await sharing.ours.reservations.settle(org, [Settled("a", ALL, [0, 0, 0])])
    await reserved(sharing.ours, org, "a", *ALL)
    assert await used(sharing.theirs, org) == [0, 0, 0]
    await reserved(sharing.ours, org, "b", BUDGET)
    for _ in range(2):
        await sharing.ours.reservations.settle(org, [Settled("b", [BUDGET], [5])])
    assert await used(sharing.theirs, org) == [0, 5, 0]


async def test_one_that_is_prolonged_is_alive(sharing: Sharing, org: str) -> None:
    await reserved(sharing.ours, org, "a", PLACE, lease_s=SHORT_S)
    assert await sharing.ours.leases.prolong(org, ["a", "unknown"], lease_s=LEASE_S) == ["unknown"]
    await asyncio.sleep(LATER_S)
    assert await found(sharing.theirs, org) == []
    assert (await used(sharing.theirs, org))[2] == 1


async def test_who_is_told_of_is_bounded_and_in_order(sharing: Sharing, org: str) -> None:
    for name in ("b", "a", "c"):
        await reserved(sharing.ours, org, name, lease_s=0.001)
        await asyncio.sleep(0.005)
    assert [each.note for each in await found(sharing.ours, org, limit=2)] == ["of b", "of a"]


async def test_what_nobody_limits_is_kept_all_the_same(sharing: Sharing, org: str) -> None:
    await sharing.ours.reservations.keep(org, [Kept("a", '{"a": "note"}'), Kept("b", "b")], lease_s=0.001)
    await sharing.ours.reservations.keep(org, [Kept("a", "another")], lease_s=LEASE_S)
    await sharing.ours.reservations.settle(org, [Settled("b", (), ())])
    await asyncio.sleep(0.01)
    assert await found(sharing.theirs, org) == [Expired("a", '{"a": "note"}', ())]


async def test_after_all_was_lost_what_runs_is_held_again(org: str) -> None:
    redis_or_skip()
    with running_redis() as node, redis.Redis(port=node.port) as forgetting:
        async with open_redis(node.uri) as ours, open_redis(node.uri) as theirs:
            await begun(ours.reservations, org, BUDGET, 50)
            await reserved(ours, org, "a", *ALL)
            forgetting.flushall()
            assert await ours.leases.prolong(org, ["a"], lease_s=LEASE_S) == ["a"]
            await ours.reservations.keep(org, [Kept("a", "of a", ALL)], lease_s=LEASE_S)
            waiting = await theirs.reservations.open(org, BUDGET, grace_s=GRACE_S)
            assert (GRACE_S - 5 < waiting.wait_s <= GRACE_S, waiting.number) == (True, None), "others may hold some too"
            opening = await opened(theirs.reservations, org, BUDGET)
            assert (await ours.reservations.open(org, BUDGET, grace_s=0.001)).wait_s > 0, "one looks it up"
            await theirs.reservations.begin(org, BUDGET, 50, opening)
            assert await used(theirs, org) == [0, 59, 1]
            refused = await theirs.reservations.reserve(org, "b", [_asking(42)], lease_s=LEASE_S)
            assert refused == Refused(_asking(42), 59, 50)
            await ours.reservations.settle(org, [Settled("a", ALL, [4, 7, 0])])
            assert await used(theirs, org) == [0, 57, 0]


def _asking(amount: int) -> Allowance:
    return Allowance(BUDGET.key, BUDGET.kind, amount, BUDGET.limit, BUDGET.seconds)


async def test_where_nothing_was_lost_nobody_waits(sharing: Sharing, org: str) -> None:
    await sharing.ours.leases.nothing_lost(org)
    assert await sharing.theirs.reservations.open(org, BUDGET, grace_s=GRACE_S) == Opening(number=1, known_since=0)


async def test_whoever_enrolled_is_found_once_that_is_over(org: str) -> None:
    redis_or_skip()
    with running_redis() as node:
        async with open_redis(node.uri) as ours, open_redis(node.uri) as theirs:
            await ours.leases.enrol([org, "another"], lease_s=SHORT_S)
            await theirs.leases.enrol([org], lease_s=LEASE_S)
            assert await theirs.leases.left(lease_s=LEASE_S, limit=10) == []
            await ours.leases.enrol(["another"], lease_s=LEASE_S)
            await asyncio.sleep(LATER_S)
            (left,) = await theirs.leases.left(lease_s=SHORT_S, limit=10)
            assert left.organisation == org
            assert await ours.leases.left(lease_s=LEASE_S, limit=10) == [], "told once for as long"
            await asyncio.sleep(LATER_S)
            (again,) = await ours.leases.left(lease_s=0.001, limit=10)
            assert again.name == left.name, "whoever was told may have died too"
            await theirs.leases.strike(left)
            await asyncio.sleep(0.01)
            (again,) = await ours.leases.left(lease_s=0.001, limit=10)
            await ours.leases.strike(again)
            await asyncio.sleep(0.01)
            assert await ours.leases.left(lease_s=LEASE_S, limit=10) == []
            assert isinstance(again, Enrolment)
