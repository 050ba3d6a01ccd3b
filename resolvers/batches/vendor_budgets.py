"""What items at a vendor may come to, held of the budgets that apply to them, until their results are collected."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import accumulate

from persistence.batch_records import Batch, VendorRun
from persistence.ports import BatchStore
from persistence.reservation_records import Kept, Refused

from ..allowances import Need, budgets_of, refusal, units
from ..booking import input_size
from ..bounds import most_tokens, most_usd
from ..limits import Limiter
from ..price_book import PriceBook
from ..run import Services
from ..types import CompleteCommand, Target
from .telling import told


@dataclass(slots=True)
class Room:
    """Of a part that is being filled. `used`: of each budget, by others; `taken`: by the part, in the same units. `at`:
    in whose day and month it is."""

    budgets: Sequence[Need]
    used: Sequence[int]
    prices: PriceBook
    at: datetime
    taken: int = 0

    def take(self, command: CompleteCommand) -> int:
        """What the item may come to. Raises BadUserInputError where that has no bound, BudgetExceededError where it has
        no room."""
        if not self.budgets:
            return 0
        tokens = most_tokens(command, input_size(command), command.target)
        amount = units(most_usd(self.prices, command, command.target, tokens, self.at, batched=True))
        for need, used in zip(self.budgets, self.used, strict=True):
            if amount > need.asked.limit - used - self.taken:
                asked = replace(need.asked, amount=amount)
                raise refusal(replace(need, asked=asked), Refused(asked, used + self.taken, used), self.at)
        self.taken += amount
        return amount

    def asked(self, amount: int) -> Sequence[Need]:
        return [replace(need, asked=replace(need.asked, amount=amount)) for need in self.budgets]


async def room_for(services: Services, batch: Batch, target: Target, at: datetime) -> Room:
    """Raises ServiceUnavailableError."""
    limits, organisation = services.limits, batch.organisation
    rules = await limits.cache.rules(organisation)
    applying = rules.applying(batch.submitter.key_id, target.provider, target.model)
    budgets = budgets_of(applying, Decimal(0), at)
    used = await limits.used(organisation, budgets) if budgets else ()
    return Room(budgets, used, await services.prices.book(organisation), at)


async def hold(limits: Limiter, run: VendorRun, room: Room, amounts: Sequence[int]) -> tuple[int, VendorRun]:
    """How many of the amounts are held, and the run that says so: others may have taken some of the room meanwhile.
    Raises ServiceUnavailableError."""
    sums, count = list(accumulate(amounts)), len(amounts)
    while count:
        budgets = room.asked(sums[count - 1])
        refused = await limits.hold(run.organisation, name_of(run), budgets)
        if refused is None:
            return count, replace(run, reserved=tuple(need.asked for need in budgets), holds=True)
        left = refused[1].allowance.limit - refused[1].used
        count = bisect_right(sums, left, hi=count)
    return 0, run


async def release(limits: Limiter, run: VendorRun) -> None:
    """Before it is written down that it has ended. May be repeated. Raises ServiceUnavailableError."""
    if run.reserved:
        await limits.release(run.organisation, name_of(run), run.reserved)


async def held_at_vendors(store: BatchStore, organisation: str) -> Sequence[Kept]:
    """`taking.Outstanding`: what was held, and is not released. Raises ServiceUnavailableError."""
    with told():
        runs = await store.unended_vendor_runs(organisation)
    return [Kept(name_of(run), "", run.reserved) for run in runs if run.holds]


def name_of(run: VendorRun) -> str:
    """Of the run, and of what is held for it."""
    return f"{run.batch}/{run.number}"
