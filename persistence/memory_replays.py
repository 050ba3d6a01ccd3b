"""The events of streams, kept in process: the embedded default."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from .ports import REPLAYED_AT_MOST
from .shared_records import Replayed

CHARACTERS_AT_MOST = 64 * 2**20
_SOMEWHAT = 100  # so many are forgotten at once, as the others have to move up

_Key = tuple[str, str]


@dataclass(slots=True)
class _Stream:
    end: float
    events: list[Replayed] = field(default_factory=list)
    forgotten: int = -1  # the greatest sequence of those that were

    @property
    def newest(self) -> int:
        return self.events[-1].sequence if self.events else self.forgotten


class MemoryReplays:
    """Implements `ports.Replays`. `clock` is monotonic, in seconds. The events of all streams together are at most
    CHARACTERS_AT_MOST: those of the streams appended to longest ago are forgotten first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._streams: dict[_Key, _Stream] = {}
        self._full: dict[_Key, _Stream] = {}  # those with events, appended to longest ago first
        self._ends: list[tuple[float, _Key]] = []  # the soonest first; of a stream appended to anew, its old ends too
        self._characters = 0

    async def append(self, organisation: str, stream: str, events: Sequence[Replayed], *, seconds: float) -> None:
        key, end = (organisation, stream), self._forget_ended() + seconds
        found = self._streams.get(key)
        if found is None:
            if not events:
                return
            found = self._streams[key] = _Stream(end)
        self._live_until(key, found, end)
        for event in events:
            if event.sequence > found.newest:
                found.events.append(event)
                self._characters += len(event.event)
        if len(found.events) > REPLAYED_AT_MOST + _SOMEWHAT:
            self._forget(found, len(found.events) - REPLAYED_AT_MOST)
        self._full.pop(key, None)
        self._full[key] = found
        self._forget_excess()

    async def read(self, organisation: str, stream: str, *, after: int, limit: int) -> Sequence[Replayed] | None:
        self._forget_ended()
        found = self._streams.get((organisation, stream))
        if found is None or found.forgotten > after:
            return None
        begin = bisect_right(found.events, after, key=lambda event: event.sequence)
        return found.events[begin : begin + limit]

    def _live_until(self, key: _Key, stream: _Stream, end: float) -> None:
        stream.end = end
        heappush(self._ends, (end, key))
        if len(self._ends) > 2 * len(self._streams) + _SOMEWHAT:
            self._ends = [(one.end, its) for its, one in self._streams.items()]
            heapify(self._ends)

    def _forget_ended(self) -> float:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, key = heappop(self._ends)
            found = self._streams.get(key)
            if found is not None and found.end <= now:
                self._forget(found, len(found.events))
                self._full.pop(key, None)
                del self._streams[key]
        return now

    def _forget_excess(self) -> None:
        """The streams stay, and know what they have forgotten."""
        while self._characters > CHARACTERS_AT_MOST:
            key, oldest = next(iter(self._full.items()))
            excess, count = self._characters - CHARACTERS_AT_MOST, 0
            while excess > 0 and count < len(oldest.events):
                excess -= len(oldest.events[count].event)
                count += 1
            self._forget(oldest, count)
            if not oldest.events:
                del self._full[key]

    def _forget(self, stream: _Stream, count: int) -> None:
        if count:
            stream.forgotten = stream.events[count - 1].sequence
            self._characters -= sum(len(event.event) for event in stream.events[:count])
            del stream.events[:count]
