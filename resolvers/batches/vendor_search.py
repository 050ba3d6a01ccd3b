"""Whether a vendor has a part whose sender died, or heard no answer: by our name, or else by what its results say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from datetime import timedelta

from persistence.batch_records import Item, VendorRun
from providers.batching import BatchStatus, Sent, VendorBatches
from providers.ports import Transport
from providers.types import Credentials

from .vendor_budgets import name_of
from .vendor_items import custom_id

SENDING = timedelta(minutes=10)
"""For so long a part may be on its way, by a process that leads no more."""
SKEW = timedelta(minutes=5)
"""By so much a vendor's clock may differ from ours."""


async def search(
    batches: VendorBatches,
    run: VendorRun,
    items: Sequence[Item],
    known: Iterable[str],
    *,
    credentials: Credentials,
    transport: Transport,
) -> tuple[BatchStatus | None, bool]:
    """The vendor's batch of these items, if there is one; and else whether that can't be said yet, for one that may be
    it goes on. `known` are those of other parts. Raises ProviderError."""
    if not items:  # they are claimed before they are sent
        return None, False
    sent = Sent(name_of(run), len(items), run.created_at - SKEW, run.created_at + SENDING + SKEW)
    found = await batches.find(sent, credentials=credentials, transport=transport)
    if batches.codec.keeps_names:
        return (found[0] if found else None), False
    names, others, goes_on = {custom_id(item) for item in items}, set(known), False
    for each in found:
        if each.id in others:
            continue
        if not each.ended:
            goes_on = True
        elif await _is_of(batches, each, names, credentials, transport):
            return each, False
    return None, goes_on


async def _is_of(
    batches: VendorBatches, status: BatchStatus, names: set[str], credentials: Credentials, transport: Transport
) -> bool:
    """The first result tells: no two parts have a custom id in common."""
    async with aclosing(batches.results(status, credentials=credentials, transport=transport)) as results:
        async for result in results:
            return result.custom_id in names
    return False
