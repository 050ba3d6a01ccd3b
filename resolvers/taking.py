"""Taking of limits in a store, where a budget that is not begun yet is begun by the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from persistence.ports import Reservations
from persistence.reservation_records import Kept, Opening, Refused, Unbegun
from persistence.usage_records import UsageSelection

from .allowances import Need, counted_as, units
from .leases import GRACE_S
from .ledger import Ledger

HELD_S = 40 * 86_400.0
"""Longer than any budget is remembered: what no process answers for is held until it is released."""
CLOCKS_S = 60.0
"""By so much the shared store's clock may differ from ours."""

Outstanding = Callable[[str], Awaitable[Sequence[Kept]]]
"""What no process answers for, of an organisation: it is written down elsewhere. Raises StoreUnavailableError."""


class Taker:
    """Whoever begins a budget of which the store may have lost something holds what is `outstanding` again, before he
    looks into the ledger: what comes to be booked meanwhile counts twice for a moment, rather than not at all."""

    def __init__(self, ledger: Ledger, outstanding: Outstanding) -> None:
        self._ledger = ledger
        self._outstanding = outstanding
        self._beginning: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def take(
        self, store: Reservations, organisation: str, kept: Kept, asked: Sequence[Need], lease_s: float
    ) -> tuple[Need, Refused] | None:
        """None, or what there is no room for. Raises StoreUnavailableError and ServiceUnavailableError."""
        by_key = {need.asked.key: need for need in asked}
        while True:
            answer = await store.reserve(organisation, kept.reservation, kept.asked, lease_s=lease_s, note=kept.note)
            if answer is None:
                return None
            need = by_key[answer.allowance.key]
            if isinstance(answer, Refused):
                return need, answer
            assert isinstance(answer, Unbegun)  # noqa: S101  # there is no fourth
            await self.begin(store, organisation, need)

    async def begin(self, store: Reservations, organisation: str, need: Need) -> None:
        """All that ask at once wait for one and the same look at the ledger. Raises as `take`."""
        name = organisation, need.asked.key
        beginning = self._beginning.get(name)
        if beginning is None:
            beginning = self._beginning[name] = asyncio.create_task(
                self._begin_by_ledger(store, organisation, need), name="budget-begin"
            )
            beginning.add_done_callback(lambda task: self._begun(name, task))
        await asyncio.shield(beginning)

    async def close(self) -> None:
        tasks = list(self._beginning.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _begin_by_ledger(self, store: Reservations, organisation: str, need: Need) -> None:
        assert need.begun_at is not None  # noqa: S101  # a budget has a period
        assert need.ends_at is not None  # noqa: S101
        while (opening := await store.open(organisation, need.asked, grace_s=GRACE_S)).wait_s:  # noqa: ASYNC110  # others' doing
            await asyncio.sleep(opening.wait_s)
        if opening.number is None:
            return  # another process has begun it
        if _may_miss(opening, need.begun_at):
            await store.keep(organisation, await self._outstanding(organisation), lease_s=HELD_S)
        selection = UsageSelection([(need.begun_at, need.ends_at)], where=counted_as(need.rule), to_date=True)
        spent = await self._ledger.spent(organisation, selection)
        await store.begin(organisation, need.asked, max(0, units(spent)), opening)

    def _begun(self, name: tuple[str, str], task: asyncio.Task[None]) -> None:
        self._beginning.pop(name, None)
        if not task.cancelled():
            task.exception()  # seen: whoever waited for it may be gone


def _may_miss(opening: Opening, begun_at: datetime) -> bool:
    """Not where the store knows the whole period: a new day begins also while nobody can say what is outstanding."""
    since = opening.known_since
    return since is None or since + CLOCKS_S > begun_at.timestamp()
