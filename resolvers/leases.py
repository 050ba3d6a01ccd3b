"""Leases: what this process has under way is told to the store that all share, and prolonged there while it lives."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from persistence.ports import Leases, Reservations, StoreUnavailableError
from persistence.records import LedgerEntry
from persistence.reservation_records import Kept

LEASE_S = 60.0
ROUND_S = 5.0
ENROLLED_S = LEASE_S + 30.0
MARGIN_S = 5.0
"""By so much at least an enrolment outlasts every lease: the servers of a cluster have each a clock of their own."""

GRACE_S = 2 * ROUND_S
"""Where all was lost, every process that can reach the store has told again by then what it holds."""

GATHER_S = 0.1
"""For so long what begins is gathered, where no limit has told of it: what ends meanwhile is never told."""

AT_ONCE = 200
ORGANISATIONS_AT_ONCE = 20
MAX_FRESH = 10_000
"""What begins past it is told in the next round."""

log = structlog.get_logger("leases")


@dataclass(eq=False, slots=True)
class Lease:
    """Of one attempt. `told`: the store has it, or is about to; `ended`: it is settled, or about to be."""

    organisation: str
    kept: Kept
    told: bool = False
    ended: bool = False


def reservation_of(entry: LedgerEntry) -> str:
    return f"{entry.completion_id}/{entry.attempt}"


class LeaseKeeper:
    """The owner of this process's leases. `tell` and `prolong` are each one task's; `clock` is monotonic, in seconds.

    `order` is held while something is told of, and while it is settled, so that what has ended is not held again.
    """

    def __init__(
        self, store: Leases, reservations: Reservations, order: asyncio.Lock, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._reservations = reservations
        self._order = order
        self._clock = clock
        self._live: defaultdict[str, dict[str, Lease]] = defaultdict(dict)
        self._fresh: list[Lease] = []
        self._wake = asyncio.Event()
        self._enrolled: dict[str, float] = {}

    async def enrol(self, *organisations: str, ahead_s: float = LEASE_S + MARGIN_S) -> None:
        """So that others look for what this process leaves there: before it takes a lease, for at least `ahead_s` from
        now. Raises StoreUnavailableError."""
        now = self._clock()
        needed = [each for each in organisations if self._enrolled.get(each, 0.0) < now + ahead_s]
        if needed:
            await self._store.enrol(needed, lease_s=ENROLLED_S)
            self._enrolled.update(dict.fromkeys(needed, now + ENROLLED_S))

    def begin(self, lease: Lease) -> None:
        self._live[lease.organisation][lease.kept.reservation] = lease
        if not lease.told and len(self._fresh) < MAX_FRESH:
            self._fresh.append(lease)
            self._wake.set()

    def end(self, lease: Lease) -> None:
        lease.ended = True
        live = self._live[lease.organisation]
        live.pop(lease.kept.reservation, None)
        if not live:
            del self._live[lease.organisation]

    async def tell(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            self._wake.clear()
            fresh, self._fresh = self._fresh, []
            groups: defaultdict[str, list[Lease]] = defaultdict(list)
            for lease in fresh:
                if not lease.ended:
                    groups[lease.organisation].append(lease)
            try:
                for organisation, leases in groups.items():
                    await self._keep(organisation, leases)
            except StoreUnavailableError:
                continue  # the next round tells of them

    async def prolong(self) -> None:
        while True:
            try:
                await self.prolong_all()
            except StoreUnavailableError as error:
                log.warning("leases can't be prolonged at the moment", reason=str(error))
            await asyncio.sleep(ROUND_S)

    async def prolong_all(self) -> None:
        """One round. Raises StoreUnavailableError."""
        now = self._clock()
        self._enrolled = {each: until for each, until in self._enrolled.items() if until > now}
        organisations = list(self._live)
        for start in range(0, len(organisations), ORGANISATIONS_AT_ONCE):
            group = organisations[start : start + ORGANISATIONS_AT_ONCE]
            await self.enrol(*group, ahead_s=ENROLLED_S - 1)
            await asyncio.gather(*(self._prolong(organisation) for organisation in group))

    async def _prolong(self, organisation: str) -> None:
        live = dict(self._live.get(organisation, {}))
        told = [name for name, lease in live.items() if lease.told]
        lost: list[str] = []
        for start in range(0, len(told), AT_ONCE):
            lost += await self._store.prolong(organisation, told[start : start + AT_ONCE], lease_s=LEASE_S)
        if lost:
            self._enrolled.pop(organisation, None)
        await self._keep(organisation, [live[name] for name in lost])
        await self._keep(organisation, [lease for lease in live.values() if not lease.told])

    async def _keep(self, organisation: str, leases: Sequence[Lease]) -> None:
        for start in range(0, len(leases), AT_ONCE):
            await self.enrol(organisation)
            async with self._order:
                group = [lease for lease in leases[start : start + AT_ONCE] if not lease.ended]
                for lease in group:
                    lease.told = True
                try:
                    await self._reservations.keep(organisation, [lease.kept for lease in group], lease_s=LEASE_S)
                except StoreUnavailableError:
                    for lease in group:
                        lease.told = False
                    raise
