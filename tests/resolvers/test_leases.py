"""Leases: what runs is told to the other processes and prolonged; what one leaves, another books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
import pytest

from persistence.entry_json import decoded, encoded
from persistence.records import LedgerEntry, Outcome
from persistence.reservation_records import Kept
from providers.types import TextDelta
from resolvers.errors import ServiceUnavailableError
from resolvers.leases import ENROLLED_S, GATHER_S, LEASE_S, MARGIN_S, ROUND_S
from resolvers.limit_cache import FRESH_S
from resolvers.limit_rules import LimitState, NewLimits
from resolvers.limits import AWAY_S
from resolvers.types import TextProduced
from tests.persistence.entries import entry
from tests.persistence.leases import MemoryLeases

from .clockwork import idle
from .scene import ACME, Hold, Scene, open_scene, texts
from .test_limits import MOST, limit, priced

OPENING: dict[str, Any] = {
    "completion_id": "cmp_left",
    "organisation": "acme",
    "provider": "alpha",
    "model": "a-1",
    "outcome": Outcome.ABANDONED,
    "estimated": True,
    "cost": None,
}


@pytest.fixture
async def leases() -> MemoryLeases:
    return MemoryLeases(asyncio.get_running_loop().time)


@pytest.fixture
async def sharing(leases: MemoryLeases) -> AsyncIterator[Scene]:
    async with open_scene(leases) as scene:
        yield scene


async def leave(leases: MemoryLeases, opening: LedgerEntry, *, note: str | None = None) -> None:
    """As a process that has been killed."""
    await leases.enrol(["acme"], lease_s=1)
    text = encoded(opening).decode() if note is None else note
    await leases.keep("acme", [Kept(f"{opening.completion_id}/1", text)], lease_s=1)


async def test_a_stream_of_five_minutes_is_alive_all_the_while(sharing: Scene, leases: MemoryLeases) -> None:
    limit(sharing, streams=1)
    held = Hold()
    sharing.alpha.will([(TextDelta("one"),), held, *texts("two")])
    async with aclosing(sharing.stream(timeout_ms=300_000)) as events:
        while not isinstance(await anext(events), TextProduced):
            pass
        (lease,) = leases.leases.values()
        for _ in range(290):
            await asyncio.sleep(1)
            assert lease.ends - leases.now() > LEASE_S - 2 * ROUND_S
            assert leases.enrolled["acme"] >= lease.ends + MARGIN_S, (
                "whoever looks for what it leaves comes after its end"
            )
        rounds = [after - before for before, after in zip(leases.prolonged, leases.prolonged[1:], strict=False)]
        assert max(rounds) < ROUND_S + 0.1
        assert len(leases.prolonged) < 290 / ROUND_S + 2, "one call a round"
        held.free.set()
        async for _ in events:
            pass
    await idle()
    assert not leases.leases


async def test_what_no_limit_tells_of_is_told_when_it_lasts(sharing: Scene, leases: MemoryLeases) -> None:
    sharing.alpha.will(texts("hi"), [held := Hold(), *texts("hi")])
    await sharing.complete()
    running = sharing.started(labels={"a": "b"})
    await held.reached.wait()
    assert not leases.leases
    await asyncio.sleep(2 * GATHER_S)
    (lease,) = leases.leases.values()
    assert b'"labels":{"a":"b"}' in lease.kept.note.encode()
    assert "hello" not in lease.kept.note
    await asyncio.sleep(1.5 * LEASE_S)
    assert lease.ends > leases.now()
    held.free.set()
    await running
    await idle()
    assert not leases.leases


async def test_while_the_store_is_away_it_is_told_later(sharing: Scene, leases: MemoryLeases) -> None:
    sharing.alpha.will([held := Hold(), *texts("hi")])
    leases.down = True
    running = sharing.started()
    await asyncio.sleep(3 * ROUND_S)
    leases.down = False
    await asyncio.sleep(ROUND_S + 0.1)
    assert len(leases.leases) == 1
    leases.leases.clear()
    await asyncio.sleep(ROUND_S + 0.1)
    assert len(leases.leases) == 1, "so is what the store has lost"
    held.free.set()
    await running
    await idle()
    assert not leases.leases


async def test_what_a_process_left_is_booked_by_another(sharing: Scene, leases: MemoryLeases) -> None:
    priced(sharing)
    await leave(leases, entry(**OPENING, input_tokens=5))
    await asyncio.sleep(2 * ROUND_S)
    (booked,) = sharing.store.entries
    assert (booked.outcome, booked.estimated, booked.cost) == (Outcome.ABANDONED, True, Decimal(5))
    assert (leases.leases, leases.enrolled) == ({}, {})


async def test_what_a_process_left_counts_against_a_budget_that_was_set_meanwhile(
    sharing: Scene, leases: MemoryLeases
) -> None:
    priced(sharing)
    limit(sharing, usd_per_day=Decimal(1000))
    sharing.alpha.will(texts("hi"))
    await sharing.complete(max_tokens=4)
    day = sharing.store.entries[0].time
    await leave(leases, entry(**OPENING, time=day, input_tokens=5))
    await asyncio.sleep(2 * ROUND_S)
    assert [state.used for state in await states(sharing)] == [27 + 5]


async def test_what_is_booked_already_stays(sharing: Scene, leases: MemoryLeases) -> None:
    """The store of this scene takes an entry twice, so that it can be seen that it was sent; a ledger does not. What is
    settled is what stands."""
    priced(sharing)
    opening = entry(**OPENING)
    await sharing.store.append([replace(opening, outcome=Outcome.SUCCEEDED, cost=Decimal(7), estimated=False)])
    limit(sharing, usd_per_day=Decimal(1000))
    sharing.alpha.will(texts("hi"))
    await sharing.complete(max_tokens=4)
    (used,) = [state.used for state in await states(sharing)]
    await leave(leases, opening)
    await asyncio.sleep(2 * ROUND_S)
    assert [state.used for state in await states(sharing)] == [used]


async def states(scene: Scene) -> Sequence[LimitState]:
    return await scene.services.limit_rules.states_for(ACME)


async def test_what_can_t_be_priced_or_booked_yet_is_found_again(sharing: Scene, leases: MemoryLeases) -> None:
    sharing.rules.down = True
    await leave(leases, entry(**OPENING))
    await asyncio.sleep(2 * ROUND_S)
    assert (sharing.store.entries, len(leases.leases)) == ([], 1)
    sharing.rules.down = False
    sharing.store.down = True
    await asyncio.sleep(2 * ENROLLED_S)
    assert len(leases.leases) == 1
    sharing.store.down = False
    await asyncio.sleep(2 * ENROLLED_S)
    assert {each.completion_id for each in sharing.store.entries} == {"cmp_left"}
    assert not leases.leases


async def test_a_note_that_nobody_can_read_holds_nothing_up(sharing: Scene, leases: MemoryLeases) -> None:
    await leave(leases, entry(**OPENING), note='{"of": "another release"}')
    await leave(leases, entry(**OPENING | {"completion_id": "cmp_other"}))
    await asyncio.sleep(2 * ROUND_S)
    assert [each.completion_id for each in sharing.store.entries] == ["cmp_other"]
    assert not leases.leases


async def test_who_was_taken_for_dead_tells_what_it_came_to(sharing: Scene, leases: MemoryLeases) -> None:
    """Its tokens and its cost, by a correction; the budget is what the ledger says."""
    priced(sharing)
    limit(sharing, usd_per_day=Decimal(1000))
    sharing.alpha.will([held := Hold(), *texts("hi")])
    running = sharing.started(max_tokens=4)
    await held.reached.wait()
    ((name, lease),) = leases.leases.items()
    await sharing.store.append([replace(decoded(orjson.loads(lease.kept.note)), cost=Decimal(2))])
    leases.told.add(name)
    held.free.set()
    await running
    sharing.store.entries = [each for each in sharing.store.entries if each.outcome is not Outcome.SUCCEEDED]
    await asyncio.sleep(2 * ROUND_S)
    standing, correction = sharing.store.entries
    assert (standing.outcome, correction.corrects, correction.settles_estimate) == (Outcome.ABANDONED, 1, True)
    assert (standing.input_tokens + correction.input_tokens, correction.output_tokens) == (7, 2)
    assert (standing.cost, correction.cost) == (Decimal(2), Decimal(25))
    assert [state.used for state in await states(sharing)] == [MOST + 25], "until who found it settles it"


async def test_a_budget_is_not_set_while_the_store_of_its_count_is_away(sharing: Scene, leases: MemoryLeases) -> None:
    """It may have a count from an earlier time, which lacks what was spent since."""
    rules = sharing.services.limit_rules
    leases.down = True
    with pytest.raises(ServiceUnavailableError):
        await rules.put(ACME, NewLimits(usd_per_day=Decimal(9)))
    assert not sharing.limits.rules
    await rules.put(ACME, NewLimits(requests_per_minute=9))
    assert len(sharing.limits.rules) == 1


async def test_a_call_that_shares_its_lease_counts_against_a_budget_that_was_set_meanwhile(
    sharing: Scene, leases: MemoryLeases
) -> None:
    priced(sharing)
    sharing.alpha.will([held := Hold(), *texts("hi")], texts("hi"))
    running = sharing.started(max_tokens=4)
    await held.reached.wait()
    await asyncio.sleep(ROUND_S)
    await sharing.services.limit_rules.put(ACME, NewLimits(usd_per_day=Decimal(1000)))
    await sharing.complete(max_tokens=4)
    await asyncio.sleep(2 * FRESH_S)
    held.free.set()
    await running
    await idle()
    assert [state.used for state in await states(sharing)] == [2 * 27]


async def test_a_reservation_that_got_no_answer_is_given_back(sharing: Scene, leases: MemoryLeases) -> None:
    priced(sharing)
    limit(sharing, usd_per_day=Decimal(MOST))
    sharing.alpha.will(texts("hi"), texts("hi"))
    reserve = leases.reserve

    async def unheard(*asked: Any, **more: Any) -> Any:
        await reserve(*asked, **more)
        leases.down = True
        leases._check()

    await sharing.complete(max_tokens=4)
    limit(sharing, usd_per_day=Decimal(27 + MOST))
    leases.reserve = unheard  # type: ignore[method-assign]
    with pytest.raises(ServiceUnavailableError):
        await sharing.complete(max_tokens=4)
    leases.reserve, leases.down = reserve, False  # type: ignore[method-assign]
    await asyncio.sleep(AWAY_S + 1)
    assert not leases.leases
    await sharing.complete(max_tokens=4)
