"""Limits, as they are kept while calls run, and the leases by which others find what a killed process leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..reservation_records import Allowance, Enrolment, Expired, Kept, Opening, Refused, Settled, Unbegun


class Reservations(Protocol):
    """Every method raises StoreUnavailableError. What belongs to an organisation is in its own keys."""

    async def reserve(
        self, organisation: str, reservation: str, asked: Sequence[Allowance], *, lease_s: float, note: str = ""
    ) -> Refused | Unbegun | None:
        """All that is asked in one step, and None; or nothing, and the first that can't be had. The same reservation
        again is had already. The note is one line. Where processes share a store, `Leases.prolong` has to hear of it
        within `lease_s`; elsewhere it ends with its process."""
        ...

    async def keep(self, organisation: str, kept: Sequence[Kept], *, lease_s: float) -> None:
        """Hold them, whatever the limits say. Those that are there stay as they are; those that somebody was told of
        are not held again. WINDOWs take no part."""
        ...

    async def settle(self, organisation: str, settled: Sequence[Settled]) -> Sequence[str]:
        """What was reserved is given back, and what it came to is taken. Of a reservation that is not there (all was
        lost) what it came to counts against BUDGETs alone: rather twice than never. Those that `Leases.expired` has
        told somebody of are left to them, and returned."""
        ...

    async def open(self, organisation: str, budget: Allowance, *, grace_s: float) -> Opening:
        """From here on what is settled counts, though it is not yet known what was spent before: to be called before
        that is looked up, until it says that it is this caller's to do. Where all was lost, other processes have
        `grace_s` to tell again what they hold."""
        ...

    async def begin(self, organisation: str, budget: Allowance, spent: int, opening: Opening) -> None:
        """What was spent before `open`; of no account once another has opened it since, or it is begun."""
        ...

    async def outdate(self, organisation: str, budgets: Sequence[Allowance]) -> None:
        """What was spent of them was not counted throughout: they have to be begun anew. What is reserved stays."""
        ...

    async def used(self, organisation: str, asked: Sequence[Allowance]) -> Sequence[int | None]:
        """How much of each is used, with what is reserved. None for a BUDGET that is not begun."""
        ...

    async def spent(self, organisation: str, budgets: Sequence[Allowance]) -> Sequence[int | None]:
        """How much of each BUDGET is used without what is reserved. None for one that is not begun."""
        ...


class Leases(Protocol):
    """What processes have under way, in the store that they share. Every method raises StoreUnavailableError."""

    async def enrol(self, organisations: Sequence[str], *, lease_s: float) -> None:
        """This process may have reservations of them for so long."""
        ...

    async def prolong(self, organisation: str, reservations: Sequence[str], *, lease_s: float) -> Sequence[str]:
        """They are still alive. Those that are not there, though nobody was told of them: all was lost."""
        ...

    async def left(self, *, lease_s: float, limit: int) -> Sequence[Enrolment]:
        """Enrolments that nobody has renewed; for `lease_s` nobody else is told of them."""
        ...

    async def expired(self, organisation: str, *, lease_s: float, limit: int) -> Sequence[Expired]:
        """Reservations whose lease is over, the longest over first; for `lease_s` nobody else is told of them."""
        ...

    async def strike(self, enrolment: Enrolment) -> None:
        """Nothing is left of it, unless it was renewed since it was told."""
        ...

    async def nothing_lost(self, organisation: str) -> None:
        """No budget of it was ever reserved from: `Reservations.open` has nobody to wait for."""
        ...
