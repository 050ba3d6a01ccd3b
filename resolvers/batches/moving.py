"""Moves of items, gathered: while one transaction runs, others' moves wait, and the next one takes them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from persistence.batch_records import OVER, BatchMode, Item, Move
from persistence.ports import BatchStore

from ..beside import end
from ..observing import UNOBSERVED, Observer

AT_ONCE = 200


@dataclass(slots=True)
class _Waiting:
    move: Move
    mode: BatchMode
    done: asyncio.Future[Item | None]


class Mover:
    """Opened by `open_mover`. The counts of a batch are in one document: so its items' moves come to few writes of it,
    rather than each to one that has to wait for the others'. `observer` is told of each item's end."""

    def __init__(self, store: BatchStore, observer: Observer) -> None:
        self._store = store
        self._observer = observer
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()

    async def move(self, move: Move, mode: BatchMode) -> Item | None:
        """As `BatchStore.move`, in a batch of that mode."""
        return (await self.move_all([move], mode))[0]

    async def move_all(self, moves: Sequence[Move], mode: BatchMode) -> Sequence[Item | None]:
        """As `BatchStore.move`, in batches of that mode, though in one transaction only where there are few."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(each, mode, loop.create_future()) for each in moves]
        self._waiting += waiting
        self._wake.set()
        results = await asyncio.gather(*(each.done for each in waiting), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    async def run(self) -> None:
        """Endless: one task runs it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._next():
                try:
                    items = await self._store.move([each.move for each in batch])
                except Exception as error:  # noqa: BLE001  # whatever it is, each caller must hear of it
                    for each in batch:
                        if not each.done.done():
                            each.done.set_exception(error)
                            each.done.exception()  # seen: its caller may have left
                else:
                    for each, item in zip(batch, items, strict=True):
                        if item is not None and each.move.to in OVER:
                            self._observer.item_ended(each.mode, each.move.to)
                        if not each.done.done():
                            each.done.set_result(item)

    def _next(self) -> Sequence[_Waiting]:
        """No two of one item: the second of them waits for the next."""
        taken: dict[tuple[str, str, int], _Waiting] = {}
        left: list[_Waiting] = []
        for each in self._waiting:
            name = each.move.organisation, each.move.batch, each.move.index
            if len(taken) < AT_ONCE and name not in taken:
                taken[name] = each
            else:
                left.append(each)
        self._waiting = left
        return list(taken.values())


@asynccontextmanager
async def open_mover(store: BatchStore, observer: Observer = UNOBSERVED) -> AsyncIterator[Mover]:
    mover = Mover(store, observer)
    task = asyncio.create_task(mover.run(), name="batch-mover")
    try:
        yield mover
    finally:
        await end(task)
