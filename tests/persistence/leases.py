"""What processes share, in memory: reservations with leases, for tests of those who keep and find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from persistence.memory_reservations import MemoryReservations
from persistence.ports import StoreUnavailableError
from persistence.reservation_records import Allowance, Enrolment, Expired, Kept, Refused, Settled, Unbegun

Name = tuple[str, str]


@dataclass
class Held:
    kept: Kept
    ends: float


class MemoryLeases(MemoryReservations):
    """Implements `ports.Leases` and `ports.Reservations`. `down` fails every call; `prolonged` notes when."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self.now = clock
        self.down = False
        self.leases: dict[Name, Held] = {}
        self.told: set[Name] = set()
        self.enrolled: dict[str, float] = {}
        self.prolonged: list[float] = []

    async def reserve(
        self, organisation: str, reservation: str, asked: Sequence[Allowance], *, lease_s: float, note: str = ""
    ) -> Refused | Unbegun | None:
        self._check()
        answer = await super().reserve(organisation, reservation, asked, lease_s=lease_s)
        if answer is None:
            kept = Kept(reservation, note, tuple(asked))
            self.leases[organisation, reservation] = Held(kept, self.now() + lease_s)
        return answer

    async def settle(self, organisation: str, settled: Sequence[Settled]) -> Sequence[str]:
        self._check()
        names = {each.reservation: (organisation, each.reservation) for each in settled}
        left = [each.reservation for each in settled if not each.found and names[each.reservation] in self.told]
        mine = [each for each in settled if each.reservation not in left]
        for each in mine:
            self.leases.pop(names[each.reservation], None)
        await super().settle(organisation, mine)
        return left

    async def outdate(self, organisation: str, budgets: Sequence[Allowance]) -> None:
        self._check()
        await super().outdate(organisation, budgets)

    async def enrol(self, organisations: Sequence[str], *, lease_s: float) -> None:
        self._check()
        self.enrolled.update(dict.fromkeys(organisations, self.now() + lease_s))

    async def keep(self, organisation: str, kept: Sequence[Kept], *, lease_s: float) -> None:
        self._check()
        await super().keep(organisation, kept, lease_s=lease_s)
        for each in kept:
            self.leases.setdefault((organisation, each.reservation), Held(each, self.now() + lease_s))

    async def prolong(self, organisation: str, reservations: Sequence[str], *, lease_s: float) -> Sequence[str]:
        self._check()
        self.prolonged.append(self.now())
        there = [each for each in reservations if (organisation, each) in self.leases]
        for each in there:
            self.leases[organisation, each].ends = self.now() + lease_s
        return [each for each in reservations if each not in there and (organisation, each) not in self.told]

    async def left(self, *, lease_s: float, limit: int) -> Sequence[Enrolment]:
        self._check()
        over = [each for each, ends in self.enrolled.items() if ends <= self.now()][:limit]
        self.enrolled.update(dict.fromkeys(over, self.now() + lease_s))
        return [Enrolment(each, each, "") for each in over]

    async def expired(self, organisation: str, *, lease_s: float, limit: int) -> Sequence[Expired]:
        self._check()
        over = [name for name, held in self.leases.items() if name[0] == organisation and held.ends <= self.now()]
        for name in over[:limit]:
            self.leases[name].ends = self.now() + lease_s
            self.told.add(name)
        return [Expired(name[1], self.leases[name].kept.note, self.leases[name].kept.asked) for name in over[:limit]]

    async def strike(self, enrolment: Enrolment) -> None:
        self._check()
        self.enrolled.pop(enrolment.name, None)

    async def nothing_lost(self, organisation: str) -> None:
        self._check()

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("away")
