"""What a killed process left is booked though the price rules can't be read at the start: as soon as they can."""

from __future__ import annotations

import asyncio

import pytest

from resolvers.errors import ServiceUnavailableError
from resolvers.recovery import TRIAL_INTERVAL_S, recovering
from tests.persistence.prices import MemoryPrices

from .scene import other_tasks
from .test_ledger import Inflight, Store, call, open_ledger


@pytest.fixture
def left() -> Inflight:
    inflight = Inflight()
    inflight.left = [call("a")]
    return inflight


async def test_at_once_where_it_can_be(left: Inflight) -> None:
    store = Store()
    async with open_ledger(store, left) as ledger, recovering(ledger, MemoryPrices()):
        assert store.committed == ["a"]
        assert other_tasks() == {"ledger-writer", "ledger-mender"}


async def test_when_the_rules_are_there(left: Inflight) -> None:
    store, prices = Store(), MemoryPrices()
    prices.down = True
    async with open_ledger(store, left) as ledger, recovering(ledger, prices):
        await asyncio.sleep(2.5 * TRIAL_INTERVAL_S)
        assert store.commits == []
        prices.down = False
        await asyncio.sleep(TRIAL_INTERVAL_S)
        assert store.committed == ["a"]
        assert other_tasks() == {"ledger-writer", "ledger-mender"}


async def test_a_ledger_that_is_away_when_the_rules_are_there_owes_it(left: Inflight) -> None:
    store, prices = Store(), MemoryPrices()
    prices.down = store.failing = True
    async with open_ledger(store, left) as ledger, recovering(ledger, prices):
        prices.down = False
        await asyncio.sleep(1.5 * TRIAL_INTERVAL_S)
        assert other_tasks() == {"ledger-writer", "ledger-mender"}
        store.failing = False
        await asyncio.sleep(TRIAL_INTERVAL_S)
        assert store.committed == ["a"]


async def test_a_ledger_and_a_spool_that_can_t_be_written_are_told(left: Inflight) -> None:
    store = Store()
    store.failing = left.failing = True
    async with open_ledger(store, left) as ledger:
        with pytest.raises(ServiceUnavailableError):
            async with recovering(ledger, MemoryPrices()):
                pass
        store.failing = left.failing = False


async def test_a_shutdown_ends_it(left: Inflight) -> None:
    store, prices = Store(), MemoryPrices()
    prices.down = True
    async with open_ledger(store, left) as ledger:
        async with recovering(ledger, prices):
            pass
        assert other_tasks() == {"ledger-writer", "ledger-mender"}
    assert store.commits == []
