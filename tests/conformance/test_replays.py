"""What every Replays keeps to: in process, on one Redis, on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from persistence.memory_replays import MemoryReplays
from persistence.ports import REPLAYED_AT_MOST, Replays
from persistence.shared_records import Replayed

from .processes import WHERE, Between, between

Replaying = Between[Replays]


@pytest.fixture(params=WHERE)
async def replaying(request: pytest.FixtureRequest) -> AsyncIterator[Replaying]:
    async with between(request.param, MemoryReplays, lambda redis: redis.replays) as found:
        yield found


@pytest.fixture
def stream() -> str:
    return uuid4().hex


def events(*sequences: int) -> list[Replayed]:
    return [Replayed(sequence, f'{{"text": "é {sequence}\\n"}}') for sequence in sequences]


async def sequences(replays: Replays, stream: str, after: int = -1, limit: int = 1000) -> list[int] | None:
    found = await replays.read("acme", stream, after=after, limit=limit)
    return None if found is None else [event.sequence for event in found]


async def test_what_is_appended_is_read_from_anywhere(replaying: Replaying, stream: str) -> None:
    await replaying.ours.append("acme", stream, events(0, 1), seconds=60)
    await replaying.ours.append("acme", stream, events(2), seconds=60)
    assert await replaying.theirs.read("acme", stream, after=-1, limit=10) == events(0, 1, 2)
    assert await replaying.theirs.read("acme", stream, after=0, limit=10) == events(1, 2)
    assert await replaying.theirs.read("acme", stream, after=-1, limit=2) == events(0, 1)
    assert await replaying.ours.read("acme", stream, after=1, limit=1) == events(2)


async def test_no_such_stream_is_told_from_nothing_new_yet(replaying: Replaying, stream: str) -> None:
    assert await replaying.ours.read("acme", stream, after=-1, limit=10) is None
    await replaying.ours.append("acme", stream, [], seconds=60)
    assert await replaying.ours.read("acme", stream, after=-1, limit=10) is None
    await replaying.ours.append("acme", stream, events(0), seconds=60)
    assert await replaying.theirs.read("acme", stream, after=0, limit=10) == []
    assert await replaying.theirs.read("acme", stream, after=7, limit=10) == []


async def test_appending_twice_is_appending_once(replaying: Replaying, stream: str) -> None:
    for replays in (replaying.ours, replaying.theirs, replaying.ours):
        await replays.append("acme", stream, events(0, 1, 2), seconds=60)
    await replaying.theirs.append("acme", stream, [Replayed(1, "other"), *events(2, 3, 3)], seconds=60)
    assert await replaying.ours.read("acme", stream, after=-1, limit=10) == events(0, 1, 2, 3)


async def test_sequences_may_have_gaps(replaying: Replaying, stream: str) -> None:
    await replaying.ours.append("acme", stream, events(3, 10), seconds=60)
    await replaying.ours.append("acme", stream, events(7, 2**40), seconds=60)
    for after, expected in [(-1, [3, 10, 2**40]), (2, [3, 10, 2**40]), (3, [10, 2**40]), (5, [10, 2**40])]:
        assert await sequences(replaying.theirs, stream, after) == expected
    assert await sequences(replaying.theirs, stream, 2**40) == []


async def test_tenants_and_odd_names_never_meet(replaying: Replaying, stream: str) -> None:
    owners = [("acme", stream), ("globex", stream), ("acme}", stream), ("", stream), ("acme", f"{{{stream}}}")]
    for number, (organisation, name) in enumerate(owners):
        await replaying.ours.append(organisation, name, events(number), seconds=60)
    for number, (organisation, name) in enumerate(owners):
        assert await replaying.theirs.read(organisation, name, after=-1, limit=10) == events(number)
    assert await replaying.theirs.read("initech", stream, after=-1, limit=10) is None


async def test_the_newest_are_kept_and_what_is_forgotten_is_told(replaying: Replaying, stream: str) -> None:
    await replaying.ours.append("acme", stream, events(*range(0, 2 * REPLAYED_AT_MOST, 2)), seconds=60)
    assert await sequences(replaying.ours, stream, limit=1) == [0]
    more = range(2 * REPLAYED_AT_MOST, 2 * REPLAYED_AT_MOST + 1200, 2)
    for begin in more[::100]:
        await replaying.ours.append("acme", stream, events(*range(begin, begin + 200, 2)), seconds=60)
    assert await sequences(replaying.theirs, stream) is None
    everything = [*range(0, 2 * REPLAYED_AT_MOST, 2), *more]
    first = everything[-REPLAYED_AT_MOST]  # the first that is kept at least
    kept = await sequences(replaying.theirs, stream, first - 2, limit=2 * REPLAYED_AT_MOST)
    assert kept == everything[-REPLAYED_AT_MOST:]
    assert await sequences(replaying.theirs, stream, first + 1, limit=1) == [first + 2]
    assert await sequences(replaying.theirs, stream, more[-1]) == []

    low, high = 300, 600  # between them the forgotten end
    assert await sequences(replaying.theirs, stream, everything[low - 1], 1) is None
    while low < high:
        middle = (low + high) // 2
        forgotten = await sequences(replaying.theirs, stream, everything[middle], 1) is None
        low, high = (middle + 1, high) if forgotten else (low, middle)
    assert low < 600
    edge = everything[low]  # the last that was forgotten; who has it misses nothing
    assert await sequences(replaying.theirs, stream, edge, 1) == [edge + 2]
    assert await sequences(replaying.theirs, stream, edge - 1, 1) is None, "in the gap before it"


async def test_a_stream_is_forgotten_in_time_after_the_last_append(replaying: Replaying, stream: str) -> None:
    await replaying.ours.append("acme", stream, events(0), seconds=0.3)
    await replaying.later(0.2)
    await replaying.theirs.append("acme", stream, events(0), seconds=60)
    await replaying.later(0.2)
    assert await sequences(replaying.ours, stream) == [0]
    await replaying.theirs.append("acme", stream, events(1), seconds=0.05)
    await replaying.later(0.1)
    assert await sequences(replaying.ours, stream) is None
    assert await sequences(replaying.ours, stream, 1) is None
    await replaying.ours.append("acme", stream, events(0), seconds=60)
    assert await sequences(replaying.theirs, stream) == [0]


async def test_several_who_append_the_same_at_once(replaying: Replaying, stream: str) -> None:
    async def append(replays: Replays, step: int) -> None:
        for begin in range(0, 60, step):
            await replays.append("acme", stream, events(*range(begin, begin + step)), seconds=60)

    await asyncio.gather(*(append(replaying.ours, step) for step in (1, 2, 3)), append(replaying.theirs, 5))
    assert await sequences(replaying.theirs, stream) == list(range(60))


async def test_who_reads_along_misses_nothing(replaying: Replaying, stream: str) -> None:
    async def append() -> None:
        for number in range(200):
            await replaying.ours.append("acme", stream, events(number), seconds=60)
            await asyncio.sleep(0)

    appending = asyncio.create_task(append())
    seen: list[int] = []
    async with asyncio.timeout(20):
        while len(seen) < 200:
            seen += await sequences(replaying.theirs, stream, seen[-1] if seen else -1, limit=7) or []
            await asyncio.sleep(0)
    await appending
    assert seen == list(range(200))
