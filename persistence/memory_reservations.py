"""Limits where there is one process: the embedded default."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import floor

from .reservation_records import PARTS, Allowance, Kept, Kind, Opening, Refused, Settled, Unbegun

_Name = tuple[str, str]


@dataclass(slots=True)
class _Window:
    """Amounts by the number of the part of time that they were taken in."""

    seconds: float
    parts: dict[int, int] = field(default_factory=dict)
    total: int = 0

    def now_is(self, now: float) -> int:
        """Drops what has left it; the number of the present part."""
        length = self.seconds / PARTS
        first = floor((now - self.seconds) / length)
        for part in [part for part in self.parts if part < first]:
            self.total -= self.parts.pop(part)
        return floor(now / length)

    def add(self, part: int, amount: int) -> None:
        self.parts[part] = self.parts.get(part, 0) + amount
        self.total += amount

    def room_in(self, amount: int, now: float) -> float | None:
        """Seconds until so much will have left it."""
        length = self.seconds / PARTS
        for part, taken in sorted(self.parts.items()):
            amount -= taken
            if amount <= 0:
                return (part + 1) * length + self.seconds - now
        return None


@dataclass(slots=True)
class _Budget:
    settled: int = 0
    reserved: int = 0
    begun: bool = False
    number: int = 0


@dataclass(slots=True)
class _Held:
    asked: Sequence[Allowance]
    parts: Sequence[int]


class MemoryReservations:
    """Implements `ports.Reservations`. `clock` is in seconds. It keeps what is in use, and budgets for their time. A
    lease has no end here: what is reserved ends with its process, as all of this does."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._windows: dict[_Name, _Window] = {}
        self._budgets: dict[_Name, _Budget] = {}
        self._places: defaultdict[_Name, set[str]] = defaultdict(set)
        self._held: defaultdict[str, dict[str, _Held]] = defaultdict(dict)
        self._ends: list[tuple[float, Kind, _Name]] = []

    async def reserve(
        self, organisation: str, reservation: str, asked: Sequence[Allowance], *, lease_s: float, note: str = ""
    ) -> Refused | Unbegun | None:
        now = self._forget()
        if reservation in self._held.get(organisation, {}):
            return None
        for allowance in asked:
            if (refusal := self._refusal((organisation, allowance.key), allowance, now)) is not None:
                return refusal
        parts = [self._take((organisation, each.key), each, now) for each in asked]
        self._held[organisation][reservation] = _Held(tuple(asked), parts)
        return None

    async def keep(self, organisation: str, kept: Sequence[Kept], *, lease_s: float) -> None:
        self._forget()
        for each in kept:
            if each.reservation in self._held.get(organisation, {}):
                continue
            for allowance in each.asked:
                name = organisation, allowance.key
                if allowance.kind is Kind.BUDGET:
                    self._budget(name, allowance).reserved += allowance.amount
                elif allowance.kind is Kind.PLACES:
                    self._places[name].add(allowance.holder)
            self._held[organisation][each.reservation] = _Held(tuple(each.asked), [-1] * len(each.asked))

    async def settle(self, organisation: str, settled: Sequence[Settled]) -> Sequence[str]:
        self._forget()
        for each in settled:
            held = self._held[organisation].pop(each.reservation, None)
            asked = each.asked if held is None else held.asked
            for number, (allowance, amount) in enumerate(zip(asked, each.amounts, strict=True)):
                name = organisation, allowance.key
                if allowance.kind is Kind.BUDGET and (budget := self._budgets.get(name)) is not None:
                    budget.settled += amount
                    budget.reserved -= 0 if held is None else allowance.amount
                elif allowance.kind is Kind.PLACES:
                    self._leave(name, allowance.holder)
                elif held is not None and (window := self._windows.get(name)) is not None:
                    window.now_is(self._clock())
                    if held.parts[number] in window.parts:
                        window.add(held.parts[number], amount - allowance.amount)
            if not self._held[organisation]:
                del self._held[organisation]
        return ()

    async def open(self, organisation: str, budget: Allowance, *, grace_s: float) -> Opening:
        found = self._budget((organisation, budget.key), budget)
        if found.begun:
            return Opening()
        found.settled, found.number = 0, found.number + 1
        return Opening(number=found.number)

    async def begin(self, organisation: str, budget: Allowance, spent: int, opening: Opening) -> None:
        found = self._budget((organisation, budget.key), budget)
        if not found.begun and found.number == opening.number:
            found.begun = True
            found.settled += spent

    async def outdate(self, organisation: str, budgets: Sequence[Allowance]) -> None:
        for each in budgets:
            if (found := self._budgets.get((organisation, each.key))) is not None:
                found.begun, found.number = False, found.number + 1

    async def used(self, organisation: str, asked: Sequence[Allowance]) -> Sequence[int | None]:
        now = self._forget()
        return [self._used((organisation, allowance.key), allowance.kind, now) for allowance in asked]

    async def spent(self, organisation: str, budgets: Sequence[Allowance]) -> Sequence[int | None]:
        self._forget()
        found = [self._budgets.get((organisation, each.key)) for each in budgets]
        return [None if budget is None or not budget.begun else budget.settled for budget in found]

    def _leave(self, name: _Name, holder: str) -> None:
        self._places[name].discard(holder)
        if not self._places[name]:
            del self._places[name]

    def _used(self, name: _Name, kind: Kind, now: float) -> int | None:
        if kind is Kind.BUDGET:
            budget = self._budgets.get(name)
            return None if budget is None or not budget.begun else budget.settled + budget.reserved
        if kind is Kind.PLACES:
            return len(self._places.get(name, ()))
        if (window := self._windows.get(name)) is None:
            return 0
        window.now_is(now)
        return window.total

    def _refusal(self, name: _Name, asked: Allowance, now: float) -> Refused | Unbegun | None:
        used = self._used(name, asked.kind, now)
        if used is None:
            return Unbegun(asked)
        if asked.kind is Kind.PLACES and asked.holder in self._places.get(name, ()):
            return None
        if used + asked.amount <= asked.limit:
            return None
        if asked.kind is Kind.BUDGET:
            return Refused(asked, used, self._budgets[name].settled)
        window = self._windows.get(name) if asked.amount <= asked.limit else None
        room_in = None if window is None else window.room_in(used + asked.amount - asked.limit, now)
        return Refused(asked, used, used, room_in)

    def _take(self, name: _Name, asked: Allowance, now: float) -> int:
        """The number of the window's part, for what is one."""
        if asked.kind is Kind.BUDGET:
            self._budgets[name].reserved += asked.amount
        elif asked.kind is Kind.PLACES:
            self._places[name].add(asked.holder)
        else:
            window = self._windows.get(name)
            if window is None:
                window = self._windows[name] = _Window(asked.seconds)
                heappush(self._ends, (now + 2 * asked.seconds, Kind.WINDOW, name))
            part = window.now_is(now)
            window.add(part, asked.amount)
            return part
        return 0

    def _budget(self, name: _Name, asked: Allowance) -> _Budget:
        if name not in self._budgets:
            self._budgets[name] = _Budget()
            heappush(self._ends, (self._clock() + asked.seconds, Kind.BUDGET, name))
        return self._budgets[name]

    def _forget(self) -> float:
        """What is empty or over is forgotten; what is not is looked at again later."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            _, kind, name = heappop(self._ends)
            if kind is Kind.BUDGET:
                del self._budgets[name]
                continue
            window = self._windows[name]
            window.now_is(now)
            if window.parts:
                heappush(self._ends, (now + 2 * window.seconds, kind, name))
            else:
                del self._windows[name]
        return now
