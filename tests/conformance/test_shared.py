"""What every SharedValues and every Events keeps to: in process, on one Redis, on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from persistence.memory import MemoryEvents, MemoryValues
from persistence.ports import LISTENER_BACKLOG, Events, SharedValues

from .processes import WHERE, both_of


@dataclass(frozen=True)
class Shared:
    """`ours` and `theirs`: as two processes see it; in process there is one."""

    ours: SharedValues
    theirs: SharedValues
    talk: Events
    hear: Events


@pytest.fixture(params=WHERE)
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    if request.param == "memory":
        values, events = MemoryValues(asyncio.get_running_loop().time), MemoryEvents()
        yield Shared(values, values, events, events)
        return
    async with both_of(request.param) as (ours, theirs):
        yield Shared(ours.values, theirs.values, ours.events, theirs.events)


@pytest.fixture
def key() -> str:
    return uuid4().hex


async def test_the_first_claim_holds_and_tells_the_others(shared: Shared, key: str) -> None:
    assert await shared.ours.claim("acme", key, "one", seconds=60) is None
    assert await shared.theirs.claim("acme", key, "two", seconds=60) == "one"
    assert await shared.theirs.read("acme", key) == "one"


async def test_a_claim_that_is_made_again_is_still_one_s_own(shared: Shared, key: str) -> None:
    """As where the answer to the first was lost."""
    for _ in range(2):
        assert await shared.ours.claim("acme", key, "one", seconds=60) is None
    assert await shared.ours.claim("acme", key, "another", seconds=60) == "one"


async def test_one_of_many_claims_holds(shared: Shared, key: str) -> None:
    claims = [
        values.claim("acme", key, f"{number}", seconds=60)
        for number, values in enumerate([shared.ours, shared.theirs] * 20)
    ]
    answers = await asyncio.gather(*claims)
    (winner,) = (number for number, standing in enumerate(answers) if standing is None)
    assert {standing for standing in answers if standing is not None} == {f"{winner}"}


async def test_a_claim_is_given_up_by_its_holder_alone(shared: Shared, key: str) -> None:
    await shared.ours.claim("acme", key, "one", seconds=60)
    assert not await shared.theirs.release("acme", key, "two")
    assert await shared.ours.release("acme", key, "one")
    assert not await shared.ours.release("acme", key, "one")
    assert await shared.theirs.claim("acme", key, "two", seconds=60) is None


async def test_organisations_and_the_operator_never_meet(shared: Shared, key: str) -> None:
    owners = ("acme", "globex", None)
    for owner in owners:
        assert await shared.ours.claim(owner, key, f"{owner}", seconds=60) is None
    assert [await shared.theirs.read(owner, key) for owner in owners] == ["acme", "globex", "None"]
    assert await shared.theirs.read("acme}:x{", key) is None


async def test_values_are_forgotten_in_time(shared: Shared, key: str) -> None:
    await shared.ours.claim("acme", key, "one", seconds=0.05)
    await shared.ours.write("acme", f"{key}2", "kept", seconds=60)
    await asyncio.sleep(0.1)
    assert await shared.theirs.read("acme", key) is None
    assert await shared.theirs.claim("acme", key, "two", seconds=60) is None
    assert await shared.ours.read("acme", f"{key}2") == "kept"


async def test_a_value_written_anew_lives_anew(shared: Shared, key: str) -> None:
    await shared.ours.write("acme", key, "old", seconds=0.05)
    await shared.theirs.write("acme", key, "new", seconds=60)
    await asyncio.sleep(0.1)
    assert await shared.ours.read("acme", key) == "new"


async def test_messages_reach_all_who_listen_in_order(shared: Shared, key: str) -> None:
    sent = [f"{number} é" for number in range(100)]
    async with shared.hear.listen(key) as one, shared.talk.listen(key) as two, shared.hear.listen(key) as three:
        for message in sent:
            await shared.talk.publish(key, message)
        for messages in (one, two, three):
            assert [await asyncio.wait_for(anext(messages), 20) for _ in sent] == sent


async def test_channels_are_apart_and_nobody_hears_what_was_before(shared: Shared, key: str) -> None:
    await shared.talk.publish(key, "before")
    async with shared.hear.listen(key) as messages, shared.hear.listen(f"{key}2") as others:
        await shared.talk.publish(f"{key}2", "other")
        await shared.talk.publish(key, "own")
        assert await asyncio.wait_for(anext(messages), 20) == "own"
        assert await asyncio.wait_for(anext(others), 20) == "other"


async def test_who_leaves_hears_no_more_and_may_come_back(shared: Shared, key: str) -> None:
    for number in range(3):
        async with shared.hear.listen(key) as messages:
            await shared.talk.publish(key, f"{number}")
            async with asyncio.timeout(20):
                while await anext(messages) != f"{number}":  # a cluster's nodes tell each other a moment later
                    pass
        await shared.talk.publish(key, "to nobody")


async def test_who_lags_behind_loses_the_oldest(shared: Shared, key: str) -> None:
    async with shared.hear.listen(key) as slow, shared.hear.listen(key) as quick:
        for number in range(LISTENER_BACKLOG + 10):
            await shared.talk.publish(key, f"{number}")
            await asyncio.wait_for(anext(quick), 20)
        assert await anext(slow) == "10"
