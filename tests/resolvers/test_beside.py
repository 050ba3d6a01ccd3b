"""Background work goes on after a defect, and ends with whoever began it."""

from __future__ import annotations

import asyncio

from resolvers.beside import AGAIN_S, REST_S, beside


async def test_it_is_begun_anew_after_a_defect() -> None:
    loop = asyncio.get_running_loop()
    begun: list[float] = []

    async def work() -> None:
        begun.append(loop.time())
        if len(begun) < 3:
            raise RuntimeError("a defect")
        await asyncio.Event().wait()

    async with beside("work", work):
        await asyncio.sleep(10 * REST_S)
    assert [round(at - begun[0], 3) for at in begun] == [0, REST_S, 2 * REST_S]


async def test_it_ends_with_whoever_began_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)  # it may have something to bring to its end
            ended.set()

    before = asyncio.all_tasks()
    async with beside("work", work):
        await asyncio.sleep(0.1)
    assert ended.is_set()
    assert asyncio.all_tasks() == before


async def test_it_ends_though_a_driver_has_swallowed_the_first_cancellation() -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    async with asyncio.timeout(2 * AGAIN_S), beside("work", work):
        await asyncio.sleep(0.1)
    assert asyncio.all_tasks() == before
