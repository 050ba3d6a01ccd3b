"""How open sockets end with their process."""

from __future__ import annotations

import asyncio

import pytest

from gateway import open_sockets as module
from gateway.open_sockets import OpenSockets


class Socket:
    def __init__(self) -> None:
        self.told: list[str] = []

    async def close_if_idle(self) -> None:
        self.told.append("drain")

    async def end(self) -> None:
        self.told.append("end")


class Stalled(Socket):
    async def close_if_idle(self) -> None:
        await asyncio.Event().wait()


class Broken(Socket):
    async def end(self) -> None:
        raise RuntimeError("the peer is gone")


async def test_those_that_are_open_are_told() -> None:
    sockets, gone, there = OpenSockets(), Socket(), Socket()
    with sockets.open(there):
        with sockets.open(gone):
            assert not sockets.ending
        await sockets.drain()
        assert sockets.ending
        await sockets.end()
    await sockets.drain()
    assert (gone.told, there.told) == ([], ["drain", "end"])


async def test_one_that_reads_nothing_or_breaks_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.01)
    sockets, other = OpenSockets(), Socket()
    with sockets.open(Stalled()), sockets.open(Broken()), sockets.open(other):
        await sockets.drain()
        await sockets.end()
    assert other.told == ["drain", "end"]
