"""Budgets of tests, begun."""

from __future__ import annotations

import asyncio

from persistence.ports import Reservations
from persistence.reservation_records import Allowance, Opening


async def opened(store: Reservations, organisation: str, budget: Allowance) -> Opening:
    """With no grace to speak of."""
    while (opening := await store.open(organisation, budget, grace_s=0.001)).wait_s:  # noqa: ASYNC110  # others' doing
        await asyncio.sleep(opening.wait_s)
    return opening


async def begun(store: Reservations, organisation: str, budget: Allowance, spent: int) -> None:
    await store.begin(organisation, budget, spent, await opened(store, organisation, budget))
