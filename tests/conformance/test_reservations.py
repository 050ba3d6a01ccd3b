"""What every Reservations keeps to: in process, on one Redis, on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import pytest

from persistence.memory_reservations import MemoryReservations
from persistence.ports import Reservations
from persistence.reservation_records import PARTS, Allowance, Kept, Kind, Opening, Refused, Settled, Unbegun
from tests.persistence.reservations import begun, opened

from .processes import WHERE, Between, between

LEASE_S = 30.0


Keeping = Between[Reservations]


@pytest.fixture(params=WHERE)
async def keeping(request: pytest.FixtureRequest) -> AsyncIterator[Keeping]:
    async with between(request.param, MemoryReservations, lambda redis: redis.reservations) as found:
        yield found


@pytest.fixture
def org() -> str:
    return f"org {{{uuid4().hex}}}"


def window(amount: int = 1, limit: int = 10, seconds: float = 60.0, key: str = "requests") -> Allowance:
    return Allowance(key, Kind.WINDOW, amount, limit, seconds)


def budget(amount: int, limit: int = 100, key: str = "day") -> Allowance:
    return Allowance(key, Kind.BUDGET, amount, limit, 1000.0)


def place(holder: str, limit: int = 2) -> Allowance:
    return Allowance("streams", Kind.PLACES, 1, limit, 60.0, holder)


async def reserved(store: Reservations, org: str, name: str, *asked: Allowance) -> bool:
    return await store.reserve(org, name, asked, lease_s=LEASE_S) is None


async def used(store: Reservations, org: str, *asked: Allowance) -> list[int | None]:
    return list(await store.used(org, asked))


async def test_a_window_is_filled_and_no_further(keeping: Keeping, org: str) -> None:
    for number in range(3):
        assert await reserved(keeping.ours, org, f"r{number}", window(3))
    refused = await keeping.theirs.reserve(org, "r3", [window(3)], lease_s=LEASE_S)
    assert isinstance(refused, Refused)
    assert (refused.allowance, refused.used, refused.settled) == (window(3), 9, 9)
    assert refused.seconds is not None
    assert 50 < refused.seconds <= 62
    assert await reserved(keeping.theirs, org, "r4", window(1))
    assert await used(keeping.ours, org, window(0)) == [10]
    assert await reserved(keeping.theirs, "another", f"{org}", window(3, key=org)), "it is this organisation's"


async def test_more_than_the_limit_is_never_had(keeping: Keeping, org: str) -> None:
    refused = await keeping.ours.reserve(org, "r", [window(11)], lease_s=LEASE_S)
    assert refused == Refused(window(11), 0, 0, None)


async def test_a_window_slides(keeping: Keeping, org: str) -> None:
    short = window(4, seconds=0.6)
    assert await reserved(keeping.ours, org, "a", short)
    await keeping.later(0.3)
    assert await reserved(keeping.ours, org, "b", short)
    refused = await keeping.ours.reserve(org, "c", [short], lease_s=LEASE_S)
    assert isinstance(refused, Refused)
    assert refused.seconds is not None
    assert 0 < refused.seconds <= 0.3 + 2 * 0.6 / PARTS
    await keeping.later(refused.seconds + 0.002)
    assert await reserved(keeping.ours, org, "c", short), "what was taken first has left it"
    assert not await reserved(keeping.ours, org, "d", short)


async def test_what_was_not_needed_of_a_window_is_given_back(keeping: Keeping, org: str) -> None:
    for name in ("a", "b"):
        await reserved(keeping.ours, org, name, window(5))
    await keeping.theirs.settle(org, [Settled("a", [window(5)], [2]), Settled("b", [window(5)], [7])])
    assert await used(keeping.ours, org, window(0)) == [9]
    await keeping.ours.settle(org, [Settled("a", [window(5)], [2])])
    assert await used(keeping.ours, org, window(0)) == [9], "settled once is settled"


async def test_what_has_left_a_window_is_not_given_back_to_it(keeping: Keeping, org: str) -> None:
    short = window(5, seconds=0.3)
    await reserved(keeping.ours, org, "a", short)
    await keeping.later(0.35)
    await reserved(keeping.ours, org, "b", replace(short, amount=3))
    await keeping.ours.settle(org, [Settled("a", [short], [0])])
    assert await used(keeping.ours, org, replace(short, amount=0)) == [3]


async def test_a_budget_has_to_be_begun(keeping: Keeping, org: str) -> None:
    assert await keeping.ours.reserve(org, "a", [budget(1)], lease_s=LEASE_S) == Unbegun(budget(1))
    assert await used(keeping.ours, org, budget(0)) == [None]
    assert await keeping.ours.spent(org, [budget(0)]) == [None]
    opening = await opened(keeping.ours, org, budget(1))
    assert await keeping.theirs.reserve(org, "a", [budget(1)], lease_s=LEASE_S) == Unbegun(budget(1))
    await keeping.theirs.begin(org, budget(1), 99, Opening(number=0))
    assert await used(keeping.ours, org, budget(0)) == [None], "another's turn, or none"
    for spent in (60, 99):
        await keeping.ours.begin(org, budget(1), spent, opening)
    assert await opened(keeping.theirs, org, budget(1)) == Opening(), "there is nothing to do"
    assert await used(keeping.ours, org, budget(0)) == [60], "begun once"
    assert await reserved(keeping.theirs, org, "a", budget(40))
    assert await keeping.ours.reserve(org, "b", [budget(1)], lease_s=LEASE_S) == Refused(budget(1), 100, 60)


async def test_what_is_settled_while_a_budget_is_opened_counts(keeping: Keeping, org: str) -> None:
    await keeping.ours.settle(org, [Settled("before", [budget(50)], [50])])
    opening = await opened(keeping.ours, org, budget(0))
    await keeping.theirs.settle(org, [Settled("lost", [budget(50)], [7])])
    await keeping.ours.begin(org, budget(0), 10, opening)
    assert await used(keeping.ours, org, budget(0)) == [17]


async def test_a_budget_that_is_outdated_has_to_be_begun_anew(keeping: Keeping, org: str) -> None:
    """What is reserved stays; whoever was about to begin it is not any more."""
    await begun(keeping.ours, org, budget(0), 30)
    assert await reserved(keeping.ours, org, "a", budget(60))
    await keeping.theirs.outdate(org, [budget(0), budget(0, key="never seen")])
    assert await keeping.ours.reserve(org, "b", [budget(1)], lease_s=LEASE_S) == Unbegun(budget(1))
    opening = await opened(keeping.ours, org, budget(0))
    await keeping.theirs.outdate(org, [budget(0)])
    await keeping.ours.begin(org, budget(0), 99, opening)
    assert await used(keeping.ours, org, budget(0)) == [None]
    await begun(keeping.theirs, org, budget(0), 35)
    assert await used(keeping.ours, org, budget(0)) == [95]
    await keeping.ours.settle(org, [Settled("a", [budget(60)], [5])])
    assert await used(keeping.theirs, org, budget(0)) == [40]
    assert await used(keeping.ours, org, budget(0, key="never seen")) == [None]


async def test_a_budget_is_what_was_spent_and_what_is_reserved(keeping: Keeping, org: str) -> None:
    await begun(keeping.ours, org, budget(0), 0)
    assert await reserved(keeping.ours, org, "a", budget(60))
    assert not await reserved(keeping.theirs, org, "b", budget(60))
    await keeping.ours.settle(org, [Settled("a", [budget(60)], [5])])
    assert await used(keeping.theirs, org, budget(0)) == [5]
    assert await reserved(keeping.theirs, org, "b", budget(60))
    assert await used(keeping.ours, org, budget(0)) == [65]
    assert await keeping.ours.spent(org, [budget(0), replace(budget(0), key="another")]) == [5, None]


async def test_what_is_kept_is_held_whatever_the_limits_say(keeping: Keeping, org: str) -> None:
    kept = Kept("kept", "", [budget(90), budget(90, key="month")])
    await begun(keeping.ours, org, budget(0), 20)
    for _ in range(2):
        await keeping.ours.keep(org, [kept, Kept("other", "", [budget(5)])], lease_s=LEASE_S)
    assert await keeping.theirs.used(org, [budget(0), budget(0, key="month")]) == [115, None]
    await begun(keeping.theirs, org, budget(0, key="month"), 7)
    assert await keeping.ours.used(org, [budget(0), budget(0, key="month")]) == [115, 97]
    refused = Refused(budget(1), 115, 20)
    assert await keeping.theirs.reserve(org, "more", [budget(1)], lease_s=LEASE_S) == refused
    for _ in range(2):
        await keeping.theirs.settle(org, [Settled("kept", kept.asked, [0, 0])])
    assert await keeping.ours.used(org, [budget(0), budget(0, key="month")]) == [25, 7]


async def test_amounts_are_exact(keeping: Keeping, org: str) -> None:
    most = 2**53
    await begun(keeping.ours, org, budget(0), most - 12_345_678_901_234_567 // 10)
    spent = most - 1_234_567_890_123_456
    assert await used(keeping.ours, org, budget(0)) == [spent]
    asked = budget(1_234_567_890_123_455, most)
    assert await reserved(keeping.ours, org, "a", asked)
    assert await used(keeping.ours, org, budget(0)) == [most - 1]
    assert not await reserved(keeping.ours, org, "b", budget(2, most))
    await keeping.ours.settle(org, [Settled("a", [asked], [1_111_111_111_111_111])])
    assert await used(keeping.ours, org, budget(0)) == [spent + 1_111_111_111_111_111]


async def test_places_are_held_once_and_left(keeping: Keeping, org: str) -> None:
    assert await reserved(keeping.ours, org, "a/1", place("a"))
    assert await reserved(keeping.theirs, org, "b/1", place("b"))
    assert await reserved(keeping.theirs, org, "b/2", place("b")), "whoever holds one needs no second"
    assert await keeping.theirs.reserve(org, "c/1", [place("c")], lease_s=LEASE_S) == Refused(place("c"), 2, 2)
    await keeping.theirs.settle(org, [Settled("a/1", [place("a")], [0])])
    assert await reserved(keeping.ours, org, "c/1", place("c"))
    assert await used(keeping.ours, org, place("")) == [2]


async def test_all_or_nothing(keeping: Keeping, org: str) -> None:
    await begun(keeping.ours, org, budget(0), 95)
    refused = await keeping.ours.reserve(org, "a", [window(1), place("a"), budget(6)], lease_s=LEASE_S)
    assert refused == Refused(budget(6), 95, 95)
    assert await used(keeping.ours, org, window(0), place(""), budget(0)) == [0, 0, 95]
    assert await reserved(keeping.ours, org, "a", window(1), place("a"), budget(5))
    assert await used(keeping.ours, org, window(0), place(""), budget(0)) == [1, 1, 100]


async def test_the_same_reservation_is_had_once(keeping: Keeping, org: str) -> None:
    for store in (keeping.ours, keeping.theirs):
        assert await reserved(store, org, "a", window(6))
    assert await used(keeping.ours, org, window(0)) == [6]


async def test_at_once_never_more_and_nobody_in_vain(keeping: Keeping, org: str) -> None:
    await begun(keeping.ours, org, budget(0, 1000), 0)

    async def call(number: int) -> bool:
        store = keeping.ours if number % 2 else keeping.theirs
        return await reserved(store, org, f"r{number}", window(1, limit=150), budget(10, 1000))

    had = await asyncio.gather(*(call(number) for number in range(300)))
    assert sum(had) == 100
    assert await used(keeping.ours, org, window(0), budget(0)) == [100, 1000]
