"""What processes count together, where there is one process: the embedded default."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from .shared_records import Demand, Shortage

_Key = tuple[bool, str, str]


@dataclass(slots=True)
class _Window:
    begun: float
    end: float
    counted: int


class MemoryCounters:
    """Implements `ports.Counters`. `clock` is monotonic, in seconds. What it keeps are the windows that have begun and
    not ended."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[_Key, _Window] = {}
        self._ends: list[tuple[float, _Key]] = []  # the soonest first

    async def take(self, organisation: str, demands: Sequence[Demand]) -> Shortage | None:
        now = self._forget()
        ordered = sorted(demands, key=lambda demand: demand.of_operator)
        taken: Counter[_Key] = Counter()
        for demand in ordered:
            key = _key(organisation, demand)
            window = self._windows.get(key)
            left = demand.limit - taken[key] - (window.counted if window else 0)
            if demand.amount > left:
                return Shortage(demand, max(0, left), window.end - now if window else 0.0)
            taken[key] += demand.amount
        for demand in ordered:
            if demand.amount:
                self._count(_key(organisation, demand), demand, now)
        return None

    async def give(self, organisation: str, demands: Sequence[Demand], *, seconds_ago: float = 0.0) -> None:
        now = self._forget()
        for demand in demands:
            window = self._windows.get(_key(organisation, demand))
            if window is not None and now - window.begun >= seconds_ago:
                window.counted = max(0, window.counted - demand.amount)

    def _count(self, key: _Key, demand: Demand, now: float) -> None:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(now, now + demand.seconds, 0)
            heappush(self._ends, (window.end, key))
        window.counted += demand.amount

    def _forget(self) -> float:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            del self._windows[heappop(self._ends)[1]]
        return now


def _key(organisation: str, demand: Demand) -> _Key:
    return (demand.of_operator, "" if demand.of_operator else organisation, demand.key)
