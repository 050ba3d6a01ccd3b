"""Sealed replays: opened by this deployment, for this stream and place, and by nothing else."""

from __future__ import annotations

import pytest

from gateway.sealed_replays import SealedReplays
from persistence.memory_replays import MemoryReplays
from persistence.shared_records import Replayed

ONE, OTHER = b"1" * 32, b"2" * 32
EVENTS = [Replayed(1, "an answer é"), Replayed(4, "of two parts"), Replayed(5, "")]


@pytest.fixture
def server() -> MemoryReplays:
    return MemoryReplays(lambda: 0.0)


async def test_what_is_sealed_is_read_and_is_not_there_in_the_clear(server: MemoryReplays) -> None:
    ours = SealedReplays(server, [ONE])
    await ours.append("acme", "s", EVENTS, seconds=60)
    assert await ours.read("acme", "s", after=-1, limit=10) == EVENTS
    assert await ours.read("acme", "s", after=1, limit=1) == EVENTS[1:2]
    assert await ours.read("acme", "s", after=5, limit=1) == []
    assert await ours.read("acme", "none", after=0, limit=1) is None
    kept = await server.read("acme", "s", after=-1, limit=10)
    assert kept is not None
    assert not any("answer" in each.event or "parts" in each.event for each in kept)


async def test_a_former_key_opens_and_another_does_not(server: MemoryReplays) -> None:
    await SealedReplays(server, [ONE]).append("acme", "s", EVENTS, seconds=60)
    assert await SealedReplays(server, [OTHER, ONE]).read("acme", "s", after=-1, limit=10) == EVENTS
    assert await SealedReplays(server, [OTHER]).read("acme", "s", after=-1, limit=10) is None


async def test_in_another_s_place_it_does_not_open(server: MemoryReplays) -> None:
    ours = SealedReplays(server, [ONE])
    await ours.append("acme", "s", EVENTS, seconds=60)
    (kept,) = await server.read("acme", "s", after=-1, limit=1) or ()
    await server.append("globex", "s", [kept], seconds=60)
    await server.append("acme", "other", [kept], seconds=60)
    await server.append("acme", "later", [Replayed(2, kept.event)], seconds=60)
    await server.append("acme", "junk", [Replayed(2, "é no base64")], seconds=60)
    for organisation, stream in [("globex", "s"), ("acme", "other"), ("acme", "later"), ("acme", "junk")]:
        assert await ours.read(organisation, stream, after=-1, limit=10) is None
