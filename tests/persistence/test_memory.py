"""What the embedded counters and replays keep, and for how long."""

from __future__ import annotations

import pytest

from persistence import memory_replays
from persistence.memory_counters import MemoryCounters
from persistence.memory_replays import MemoryReplays
from persistence.shared_records import Demand, Replayed


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_windows_that_ended_are_not_kept() -> None:
    clock = Clock()
    counters = MemoryCounters(clock)
    for number in range(1000):
        clock.now = float(number)
        await counters.take(f"org-{number}", [Demand("calls", 1, 10, 5.0), Demand("calls", 1, 10**6, 5.0, True)])
        await counters.take(f"org-{number}", [Demand("calls", 1, 10, 5.0)])
    assert len(counters._windows) <= 6
    assert len(counters._ends) <= 6


async def test_streams_that_ended_are_not_kept() -> None:
    clock = Clock()
    replays = MemoryReplays(clock)
    for number in range(1000):
        clock.now = float(number)
        for sequence in range(3):
            await replays.append("acme", f"s{number}", [Replayed(sequence, "event")], seconds=5)
        await replays.append("acme", "long", [Replayed(number, "event")], seconds=5)
    assert len(replays._streams) == len(replays._full) <= 6
    assert len(replays._ends) < 200
    assert replays._characters == sum(len(one.events) for one in replays._streams.values()) * len("event")


async def test_of_too_much_the_oldest_streams_events_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_replays, "CHARACTERS_AT_MOST", 100)
    replays = MemoryReplays(Clock())
    for name in ("one", "two"):
        await replays.append("acme", name, [Replayed(number, "x" * 10) for number in range(4)], seconds=60)
    await replays.append("acme", "three", [Replayed(number, "x" * 10) for number in range(5)], seconds=60)
    assert await replays.read("acme", "one", after=1, limit=9) is None
    assert await replays.read("acme", "one", after=2, limit=9) == [Replayed(3, "x" * 10)]
    await replays.append("acme", "two", [Replayed(4, "x" * 50)], seconds=60)
    assert await replays.read("acme", "one", after=2, limit=9) is None
    assert await replays.read("acme", "one", after=3, limit=9) == [], "it is known to have gone so far"
    assert await replays.read("acme", "three", after=-1, limit=9) is None
    await replays.append("acme", "one", [Replayed(3, "again"), Replayed(4, "new")], seconds=60)
    assert await replays.read("acme", "one", after=3, limit=9) == [Replayed(4, "new")]
    await replays.append("acme", "two", [Replayed(5, "x" * 101)], seconds=60)
    assert await replays.read("acme", "two", after=4, limit=9) is None
    assert await replays.read("acme", "two", after=5, limit=9) == []
