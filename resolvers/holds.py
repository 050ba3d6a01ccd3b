"""What a call asks of the limits, and what is held for it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from persistence.ports import Reservations
from persistence.records import LedgerEntry

from .allowances import Need
from .leases import Lease
from .price_book import PriceBook
from .principal import Principal
from .types import Command, Target


@dataclass(slots=True)
class Hold:
    """What is reserved for one attempt, and where; nothing where it is not limited. `opening`: booked if nothing else
    is. `lease`: by which other processes find it, where there are such."""

    opening: LedgerEntry
    needs: Sequence[Need]
    store: Reservations | None
    lease: Lease | None
    settled: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Call:
    """The attempt that is to be made. `opening`: the entry that it begins with. `earlier`: where the completion was
    before; where one of these counted already, it is no other request. `background`: it leaves the last fifth of what a
    minute allows to others."""

    principal: Principal
    command: Command
    target: Target
    input_size: int
    opening: LedgerEntry
    background: bool
    prices: PriceBook
    earlier: Collection[Target]
