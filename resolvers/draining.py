"""Entries that waited in the queue come into the ledger."""

from __future__ import annotations

from collections.abc import Sequence

from persistence.ports import LedgerStore
from persistence.queue_records import Job
from persistence.records import LedgerEntry

from .sinks import entries_of

NAMED = 5


class Drain:
    """A worker's handler of ledger jobs. An entry that is there already stays as it is, so a job may come twice."""

    def __init__(self, store: LedgerStore) -> None:
        self._store = store

    async def __call__(self, jobs: Sequence[Job]) -> None:
        """Raises StoreUnavailableError, and ValueError for jobs that are not of entries, and for entries that no ledger
        can hold: all others of their job are in it then."""
        entries = [entry for job in jobs for entry in entries_of(job)]
        refused = await self._append(entries, whole=len(jobs) > 1)
        if refused:
            reason = refused[0][1]
            names = ", ".join(f"{entry.completion_id}/{entry.attempt}" for entry, _ in refused[:NAMED])
            raise ValueError(f"{len(refused)} of {len(entries)} entries can't be stored ({names}): {reason}")

    async def _append(self, entries: Sequence[LedgerEntry], *, whole: bool) -> Sequence[tuple[LedgerEntry, ValueError]]:
        """`whole`: raises the ValueError, rather than to look for what it is about."""
        try:
            await self._store.append(entries)
        except ValueError as error:
            if whole:
                raise
            if len(entries) == 1:
                return [(entries[0], error)]
            middle = len(entries) // 2
            first = await self._append(entries[:middle], whole=False)
            return [*first, *await self._append(entries[middle:], whole=False)]
        return []
