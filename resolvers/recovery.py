"""What an earlier process left in flight is booked at the start, or as soon after it as the price rules can be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from persistence.ports import PriceStore

from .errors import ServiceUnavailableError
from .ledger import Ledger, UnpricedError

TRIAL_INTERVAL_S = 5.0

log = structlog.get_logger("ledger")


@asynccontextmanager
async def recovering(ledger: Ledger, prices: PriceStore) -> AsyncIterator[None]:
    """Raises ServiceUnavailableError where neither the ledger nor the spool can be written."""
    try:
        await ledger.recover(prices)
    except UnpricedError as error:
        log.warning("what was in flight is booked later", reason=error.message)
    else:
        yield
        return
    task = asyncio.create_task(_recover(ledger, prices), name="recovery")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _recover(ledger: Ledger, prices: PriceStore) -> None:
    while True:
        await asyncio.sleep(TRIAL_INTERVAL_S)
        try:
            count = await ledger.recover(prices)
        except UnpricedError:
            continue
        except ServiceUnavailableError:
            return  # the next start finds it again
        log.info("what was in flight is booked", entries=count)
        return
