"""Budgets that are spent up to a threshold: each is told of once in its period, by whatever number of processes. What
is told is an event for webhooks, which remember it, and a live one for who listens."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog

from persistence.limit_records import LimitRule
from persistence.ports import Reservations, StoreUnavailableError

from .allowances import MONEY, Need, usd
from .beside import beside

DEFAULT_ALERT_AT = (50, 80, 90, 100)
GATHER_S = 0.2
"""What is settled meanwhile is looked at together."""
TRIAL_INTERVAL_S = 2.0
"""Between two looks while they can't be had, or told of."""
END_S = 2.0
MAX_TOUCHED = 20_000
MAX_TOLD = 50_000

log = structlog.get_logger("limits")


@dataclass(frozen=True, slots=True)
class BudgetAlert:
    """`percent` of the `limit` are `spent`, in USD, without what is reserved for calls that run. `limited`, `name` and
    `measure` as in `LimitRule`; the period is that of the budget."""

    organisation: str
    limited: str
    name: str
    measure: str
    percent: int
    limit: Decimal
    spent: Decimal
    begun_at: datetime
    ends_at: datetime

    @property
    def id(self) -> str:
        """Another limit is another alert."""
        budget = f"{self.measure}/{self.begun_at:%Y-%m-%d}/{self.limited}:{self.name}"
        return f"{budget}/{self.limit.normalize():f}/{self.percent}"

    def data(self) -> Mapping[str, Any]:
        """For a webhook's event."""
        return {
            "limited": self.limited,
            "name": self.name or None,
            "measure": self.measure,
            "percent": self.percent,
            "limitUsd": f"{self.limit:f}",
            "spentUsd": f"{self.spent:f}",
            "periodBegunAt": self.begun_at.isoformat(),
            "periodEndsAt": self.ends_at.isoformat(),
        }


Tell = Callable[[BudgetAlert], Awaitable[None]]
"""Once and for all, however often the same alert is told. Raises StoreUnavailableError."""

_Name = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class _Touched:
    store: Reservations
    need: Need


class BudgetAlerts:
    """Looks at budgets as something is settled on them. Opened by `open_budget_alerts`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._touched: dict[_Name, _Touched] = {}
        self._told: OrderedDict[_Name, frozenset[int]] = OrderedDict()
        self._wake = asyncio.Event()

    def touched(self, organisation: str, store: Reservations, needs: Sequence[Need]) -> None:
        """Something was settled on these, or had no room. Quick: calls wait for it."""
        for need in needs:
            if need.measure not in MONEY or not need.asked.limit:
                continue
            name = organisation, need.asked.key, need.asked.limit
            left = set(thresholds(need.rule)) - self._told.get(name, frozenset())
            if left and len(self._touched) < MAX_TOUCHED:
                self._touched[name] = _Touched(store, need)
                self._wake.set()

    async def work(self) -> None:
        whole = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(GATHER_S if whole else TRIAL_INTERVAL_S)
            batch = dict(self._touched)
            whole = await self.flush()
            if not whole:
                self._touched = {**batch, **self._touched}
                self._wake.set()

    async def flush(self) -> bool:
        """Looks at all that was touched; whether it could."""
        batch, self._touched = self._touched, {}
        groups: defaultdict[tuple[int, str], dict[_Name, _Touched]] = defaultdict(dict)
        for name, each in batch.items():
            groups[id(each.store), name[0]][name] = each
        whole = True
        for group in groups.values():
            try:
                await self._look(group)
            except StoreUnavailableError as error:
                log.warning("budgets are not looked at", reason=str(error))
                whole = False
        return whole

    async def _look(self, group: Mapping[_Name, _Touched]) -> None:
        store = next(iter(group.values())).store
        organisation = next(iter(group))[0]
        spent = await store.spent(organisation, [each.need.asked for each in group.values()])
        for (name, each), amount in zip(group.items(), spent, strict=True):
            for percent in thresholds(each.need.rule):
                if amount is None or 100 * amount < percent * each.need.asked.limit:
                    break
                if percent not in self._told.get(name, frozenset()):
                    await self._tell(_alert(organisation, each.need, percent, amount))
                    self._remember(name, percent)

    def _remember(self, name: _Name, percent: int) -> None:
        self._told[name] = self._told.get(name, frozenset()) | {percent}
        self._told.move_to_end(name)
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)


@asynccontextmanager
async def open_budget_alerts(tell: Tell) -> AsyncIterator[BudgetAlerts]:
    """What was settled last is looked at in the end."""
    alerts = BudgetAlerts(tell)
    async with beside("budget-alerts", alerts.work):
        yield alerts
    with suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await alerts.flush()


def thresholds(rule: LimitRule) -> tuple[int, ...]:
    """At how much of its budgets is told of, in per cent, rising; none where it has no budget."""
    if rule.usd_per_day is None and rule.usd_per_month is None:
        return ()
    return DEFAULT_ALERT_AT if rule.alert_at is None else rule.alert_at


def _alert(organisation: str, need: Need, percent: int, spent: int) -> BudgetAlert:
    assert need.begun_at is not None  # noqa: S101  # a budget has a period
    assert need.ends_at is not None  # noqa: S101
    return BudgetAlert(
        organisation=organisation,
        limited=need.rule.limited.value,
        name=need.rule.name,
        measure=need.measure.value,
        percent=percent,
        limit=usd(need.asked.limit),
        spent=usd(spent),
        begun_at=need.begun_at,
        ends_at=need.ends_at,
    )
