"""What batches leave behind: they and their files are kept for a while after their end, then forgotten. What they have
spent stays in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from persistence.ports import BatchStore, ObjectStore

from .json_texts import UPLOADS, folder_of

AT_ONCE = 100
"""Batches of a turn, and files of a page."""
UNOPENED_FOR = timedelta(hours=6)
"""After so long a batch that was never opened is nobody's."""

log = structlog.get_logger("batches")


@dataclass(frozen=True, slots=True)
class Forgetter:
    """`kept_for`: so long a batch is there after its end, and a file of lines after its upload. `now` is aware UTC."""

    store: BatchStore
    objects: ObjectStore
    kept_for: timedelta
    now: Callable[[], datetime]

    async def forget(self) -> None:
        """Closes what is old, then discards that and what was never opened. Raises StoreUnavailableError."""
        before = self._time() - self.kept_for
        for organisation, batch_id in await self.store.ended(before=before, limit=AT_ONCE):
            if await self.store.close(organisation, batch_id, before=before):
                log.info("a batch is forgotten", batch=batch_id, organisation=organisation)
        unopened = self._time() - UNOPENED_FOR
        for organisation, batch_id in await self.store.unopened(before=unopened, limit=AT_ONCE):
            await discard(self.store, self.objects, organisation, batch_id)

    async def forget_uploads(self) -> None:
        """Those that no batch was made of too. Looks at every file there is. Raises StoreUnavailableError."""
        await self.objects.forget_older(self._time() - self.kept_for, prefix=UPLOADS)

    def _time(self) -> datetime:
        now = self.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


async def discard(store: BatchStore, objects: ObjectStore, organisation: str, batch_id: str) -> None:
    """One that was never opened, or is closed: files first, so that whoever is killed meanwhile leaves the batch for
    the next to find. Raises StoreUnavailableError."""
    after = None
    while page := await objects.page(organisation, prefix=folder_of(batch_id), limit=AT_ONCE, after=after):
        for each in page:
            await objects.delete(organisation, each.name)
        after = page[-1].name
    await store.discard(organisation, batch_id)
