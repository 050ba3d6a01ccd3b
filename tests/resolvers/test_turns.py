"""A fair share of the readers: who waits for whom, for how long, and how many."""

from __future__ import annotations

import asyncio

import pytest

from resolvers.errors import RateLimitedError, ServiceUnavailableError
from resolvers.turns import MAX_WAITING, WAIT_S, Turns

from .clockwork import idle


class Readers:
    """Reads that take as long as the test says."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.begun: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}

    def read(self, name: str) -> asyncio.Task[None]:
        self.ends[name] = asyncio.Event()
        return asyncio.create_task(self._read(name))

    async def _read(self, name: str) -> None:
        async with self.turns.turn(name.partition(" ")[0]):
            self.begun.append(name)
            await self.ends[name].wait()


@pytest.fixture
def readers() -> Readers:
    return Readers()


async def test_an_organisation_reads_one_after_the_other_and_keeps_nobody_else(readers: Readers) -> None:
    names = ["acme 1", "acme 2", "acme 3", "globex 1"]
    tasks = {name: readers.read(name) for name in names}
    await idle()
    assert readers.begun == ["acme 1", "globex 1"]
    readers.ends["acme 1"].set()
    await idle()
    assert readers.begun == ["acme 1", "globex 1", "acme 2"]
    for name in names:
        readers.ends[name].set()
    await asyncio.gather(*tasks.values())
    assert readers.begun[-1] == "acme 3"


async def test_who_leaves_and_who_fails_leave_their_place(readers: Readers) -> None:
    first, second, third = (readers.read(f"acme {number}") for number in (1, 2, 3))
    await idle()
    second.cancel()
    first.cancel()
    readers.ends["acme 3"].set()
    await third
    assert readers.begun == ["acme 1", "acme 3"]
    assert await asyncio.gather(first, second, return_exceptions=True)
    with pytest.raises(ZeroDivisionError):
        async with readers.turns.turn("acme"):
            raise ZeroDivisionError
    async with readers.turns.turn("acme"):
        pass


async def test_nobody_waits_without_end(readers: Readers) -> None:
    first, second = readers.read("acme 1"), readers.read("acme 2")
    began = asyncio.get_running_loop().time()
    with pytest.raises(ServiceUnavailableError, match="have not ended"):
        await second
    assert asyncio.get_running_loop().time() - began == pytest.approx(WAIT_S)
    readers.ends["acme 1"].set()
    await first


async def test_so_many_wait_and_no_more(readers: Readers) -> None:
    tasks = [readers.read(f"acme {number}") for number in range(MAX_WAITING + 1)]
    await idle()
    with pytest.raises(RateLimitedError, match="ask for fewer"):
        await readers.read("acme more")
    assert readers.begun == ["acme 0"]
    for end in readers.ends.values():
        end.set()
    await asyncio.gather(*tasks)
