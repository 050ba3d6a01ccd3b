"""What the processes of one server know of each other: a table in memory that they share, a row for each."""

from __future__ import annotations

import asyncio
import mmap
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum

BEAT_S = 1.0
SILENT_AFTER_S = 15.0
"""Who has not said for so long how it does is taken to hang."""
MAX_REFUSAL_BYTES = 4096


class State(IntEnum):
    ABSENT = 0
    READY = 1
    TROUBLED = 2


_ROW = struct.Struct("=qd")  # state, and when it was said: monotonic seconds, the same in all processes
_FLAG = struct.Struct("=q")
_COMPLETE, _ENDING, _REFUSAL, _ROWS = (place * _FLAG.size for place in range(4))  # where what stands in the head


class ProcessTable:
    """Made before the processes part. A row is written by its process alone, and cleared by the master when that has
    ended; one that is read while it is written is right a second later."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._refusal_at = _ROWS + processes * _ROW.size
        self._memory = mmap.mmap(-1, self._refusal_at + MAX_REFUSAL_BYTES)

    def say(self, row: int, state: State) -> None:
        _ROW.pack_into(self._memory, _ROWS + row * _ROW.size, state, time.monotonic())
        if State.ABSENT not in (each for each, _ in self._rows()):
            self._put(_COMPLETE, 1)

    def clear(self, row: int) -> None:
        _ROW.pack_into(self._memory, _ROWS + row * _ROW.size, State.ABSENT, 0.0)

    def complete(self) -> bool:
        """Whether all of them were there at once before."""
        return bool(self._at(_COMPLETE))

    def end(self) -> None:
        """The master is told to end, and so will be all: none of them is to be sent calls any more."""
        self._put(_ENDING, 1)

    def ending(self) -> bool:
        return bool(self._at(_ENDING))

    def refuse(self, reason: str) -> None:
        """Why a process can't start, for the master to tell. They are all alike: the last word counts."""
        text = reason.encode()[:MAX_REFUSAL_BYTES]
        self._memory[self._refusal_at : self._refusal_at + len(text)] = text
        self._put(_REFUSAL, len(text))

    def refusal(self) -> str | None:
        text = self._memory[self._refusal_at : self._refusal_at + self._at(_REFUSAL)]
        return text.decode(errors="ignore") or None

    def others(self, row: int) -> tuple[list[str], list[str]]:
        """What the server is missing because of the processes beside `row`, which would be sent calls and can't answer;
        and what it is without, but can do without: one that is being replaced takes no calls."""
        now = time.monotonic()
        rows = [each for number, each in enumerate(self._rows()) if number != row]
        absent = sum(state is State.ABSENT for state, _ in rows)
        troubled = sum(state is State.TROUBLED for state, _ in rows)
        silent = sum(state is not State.ABSENT and now - said > SILENT_AFTER_S for state, said in rows)
        without = [f"{absent} of {self.processes} processes (not started)"] * bool(absent)
        missing = [
            *[f"{troubled} of {self.processes} processes (ledger or in-flight log)"] * bool(troubled),
            *[f"{silent} of {self.processes} processes (no sign of life)"] * bool(silent),
        ]
        return (missing, without) if self.complete() else ([*missing, *without], [])

    def _at(self, place: int) -> int:
        value: int = _FLAG.unpack_from(self._memory, place)[0]
        return value

    def _put(self, place: int, value: int) -> None:
        _FLAG.pack_into(self._memory, place, value)

    def _rows(self) -> Sequence[tuple[State, float]]:
        rows = (_ROW.unpack_from(self._memory, _ROWS + row * _ROW.size) for row in range(self.processes))
        return [(State(state), said) for state, said in rows]


@dataclass(frozen=True, slots=True)
class ProcessPlace:
    """One process's row."""

    table: ProcessTable
    row: int

    @asynccontextmanager
    async def taken(self, troubles: Callable[[], Sequence[str]]) -> AsyncIterator[None]:
        """Says every second how this process does; that it is gone, the master says."""
        self._say(troubles)
        telling = asyncio.create_task(self._tell(troubles), name="process-table")
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait([telling])

    async def _tell(self, troubles: Callable[[], Sequence[str]]) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            self._say(troubles)

    def _say(self, troubles: Callable[[], Sequence[str]]) -> None:
        self.table.say(self.row, State.TROUBLED if troubles() else State.READY)

    def others(self) -> tuple[list[str], list[str]]:
        """As `ProcessTable.others`."""
        return self.table.others(self.row)
