"""What a killed process had under way is found by its leases, and booked; what a slow one tells later is made good."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import orjson
import structlog

from persistence.entry_json import decoded
from persistence.ports import Leases, PriceStore, Reservations, StoreUnavailableError
from persistence.records import LedgerEntry, Outcome
from persistence.reservation_records import Expired, Settled

from .allowances import came_to
from .corrections import measure
from .errors import DomainError
from .leases import AT_ONCE, ENROLLED_S, LEASE_S, ROUND_S
from .ledger import Ledger
from .settling import Settlement

MAX_LATE = 10_000

log = structlog.get_logger("leases")


class Finder:
    """Looks for what others left, in every process of a deployment. `work` is one task's.

    An entry that stands already stays: that a process has booked before it died, or that its next start has booked. So
    what is settled is what stands in the ledger, whoever wrote it.
    """

    def __init__(self, leases: Leases, reservations: Reservations, ledger: Ledger, prices: PriceStore) -> None:
        self._leases = leases
        self._reservations = reservations
        self._ledger = ledger
        self._prices = prices
        self._late: deque[Settlement] = deque(maxlen=MAX_LATE)
        self.unreserved: Callable[[LedgerEntry, frozenset[str]], None] | None = None
        """Told of what was booked, and of what was reserved for it."""
        self.counted: Callable[[LedgerEntry], Awaitable[None]] | None = None
        """Told of what has come to a budget, once it is there. Raises ServiceUnavailableError."""

    def came_late(self, settlement: Settlement) -> None:
        """Of an attempt of this process, whose lease had been over when somebody looked."""
        self._late.append(settlement)

    async def work(self) -> None:
        while True:
            try:
                await self.look()
                await self.make_good()
            except (StoreUnavailableError, DomainError) as error:
                log.warning("what was left can't be booked at the moment", reason=str(error))
            await asyncio.sleep(ROUND_S)

    async def look(self) -> None:
        """Raises StoreUnavailableError and ServiceUnavailableError: what was found is found again."""
        while enrolments := await self._leases.left(lease_s=ENROLLED_S, limit=AT_ONCE):
            for enrolment in enrolments:
                organisation = enrolment.organisation
                while found := await self._leases.expired(organisation, lease_s=LEASE_S, limit=AT_ONCE):
                    await self._book(organisation, found)
                await self._leases.strike(enrolment)

    async def _book(self, organisation: str, found: Sequence[Expired]) -> None:
        noted = {each.reservation: _entry_of(each) for each in found}
        count = await self._ledger.book_left([entry for entry in noted.values() if entry is not None], self._prices)
        log.warning("calls of a process that is gone are booked", organisation=organisation, entries=count)
        settled = []
        abandoned: list[tuple[LedgerEntry, frozenset[str]]] = []
        standing: list[LedgerEntry] = []
        for each in found:
            entry = await self._standing(noted[each.reservation])
            amounts = [asked.amount if entry is None else came_to(asked, entry) for asked in each.asked]
            settled.append(Settled(each.reservation, each.asked, amounts, found=True))
            if entry is not None:
                standing.append(entry)
            if entry is not None and entry.outcome is Outcome.ABANDONED:
                abandoned.append((entry, frozenset(asked.key for asked in each.asked)))
        await self._reservations.settle(organisation, settled)
        if self.unreserved is not None:
            for entry, reserved in abandoned:
                self.unreserved(entry, reserved)
        await self._tell_counted(standing)

    async def _tell_counted(self, entries: Sequence[LedgerEntry]) -> None:
        if self.counted is not None:
            for entry in entries:
                with suppress(DomainError):  # it can't be looked at now, and is with the next call
                    await self.counted(entry)

    async def make_good(self) -> None:
        """The vendor's figures win over an estimate that was booked before they were there. Raises as `look`."""
        for _ in range(len(self._late)):
            settlement = self._late[0]
            done = await self._make_good(settlement)
            self._late.popleft()
            if not done:
                self._late.append(settlement)

    async def _make_good(self, late: Settlement) -> bool:
        """Whether there is nothing more to do for it."""
        truth = late.truth
        standing = await self._standing(truth)
        if standing is None:
            return False  # it waits in the queue
        if standing.outcome is not Outcome.ABANDONED:
            return True
        await measure(self._ledger, truth)
        missing = [came_to(asked, truth) - came_to(asked, standing) for asked in late.asked]
        await late.store.settle(late.organisation, [Settled(f"{late.reservation}/late", late.asked, missing)])
        await self._tell_counted([truth])
        return True

    async def _standing(self, entry: LedgerEntry | None) -> LedgerEntry | None:
        if entry is None:
            return None
        entries = await self._ledger.completion(entry.organisation, entry.completion_id)
        return next((each for each in entries if each.attempt == entry.attempt), None)


def _entry_of(found: Expired) -> LedgerEntry | None:
    try:
        return decoded(orjson.loads(found.note))
    except ValueError as error:
        reason = str(error)
        log.error("a call of a process that is gone can't be booked", reservation=found.reservation, reason=reason)  # noqa: TRY400  # its text is enough
        return None
