"""A threshold that is passed by what a killed process has left."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

from persistence.entry_json import encoded
from persistence.reservation_records import Kept
from resolvers.allowances import budgets_of
from resolvers.leases import ROUND_S
from tests.persistence.entries import entry
from tests.persistence.leases import MemoryLeases
from tests.persistence.limits import limit_rule

from .scene import open_scene
from .test_budget_alerts import COST, Told, called, watching
from .test_leases import OPENING
from .test_limits import limit


async def test_it_is_told_of_when_another_books_that() -> None:
    leases, told = MemoryLeases(asyncio.get_running_loop().time), Told()
    async with open_scene(leases) as scene, watching(scene, told):
        limit(scene, usd_per_day=Decimal(200))
        await called(scene)
        assert told.percents == []
        opening = entry(**OPENING, time=datetime.now(UTC), input_tokens=80)
        [need] = budgets_of([limit_rule(usd_per_day=Decimal(200))], Decimal(80), opening.time)
        await leases.enrol(["acme"], lease_s=1)
        await leases.keep("acme", [Kept("cmp_left/1", encoded(opening).decode(), [need.asked])], lease_s=1)
        await asyncio.sleep(3 * ROUND_S)
        assert [(each.percent, each.spent) for each in told.alerts] == [(50, COST + 80)]
