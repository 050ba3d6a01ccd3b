"""Limits, as they are kept while calls run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..reservation_records import Allowance, Expired, Refused, Settled, Unbegun


class Reservations(Protocol):
    """Every method raises StoreUnavailableError. What belongs to an organisation is in its own keys."""

    async def reserve(
        self, organisation: str, reservation: str, asked: Sequence[Allowance], *, lease_s: float, note: str = ""
    ) -> Refused | Unbegun | None:
        """All that is asked in one step, and None; or nothing, and the first that can't be had. The same reservation
        again is had already. The note is one line."""
        ...

    async def settle(self, organisation: str, settled: Sequence[Settled]) -> None:
        """What was reserved is given back, and what it came to is taken. Of a reservation that is not there (it was
        settled or has expired, or all was lost) what it came to counts against BUDGETs alone: rather twice than never.
        """
        ...

    async def prolong(self, organisation: str, reservations: Sequence[str], *, lease_s: float) -> None:
        """They are still alive."""
        ...

    async def expired(self, organisation: str, *, lease_s: float, limit: int) -> Sequence[Expired]:
        """Those whose lease is over, the longest over first; for `lease_s` nobody else is told of them."""
        ...

    async def open(self, organisation: str, budget: Allowance) -> None:
        """From here on what is settled counts, though it is not yet known what was spent before: to be called before
        that is looked up."""
        ...

    async def begin(self, organisation: str, budget: Allowance, spent: int) -> None:
        """What was spent before `open`. Only the first one counts."""
        ...

    async def used(self, organisation: str, asked: Sequence[Allowance]) -> Sequence[int | None]:
        """How much of each is used, with what is reserved. None for a BUDGET that is not begun."""
        ...

    async def organisations(self) -> Sequence[str]:
        """Those that may have reservations."""
        ...
