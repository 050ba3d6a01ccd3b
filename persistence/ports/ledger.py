"""The ledger, and the note of what is in flight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..records import CompletionFilter, Cursor, LedgerEntry
from ..usage_records import UsageCell, UsageSelection


class LedgerStore(Protocol):
    """The append-only ledger of attempts. Every method raises StoreUnavailableError."""

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Commit all entries in one transaction, durably, before returning. An entry already there stays as it is.
        Without entries it tells whether any could be committed."""
        ...

    async def completion(self, organisation: str, completion_id: str) -> Sequence[LedgerEntry]:
        """One completion's entries by attempt; empty if there is none in that organisation."""
        ...

    async def completion_by_key(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        """The same by idempotency key; the newest completion, should the key have been used again."""
        ...

    async def completions(
        self, organisation: str, *, where: CompletionFilter, limit: int, after: Cursor | None = None
    ) -> Sequence[Sequence[LedgerEntry]]:
        """Completions, newest first, each with all its entries. A completion matches where any of its entries does;
        `where.outcome` is its last attempt's."""
        ...

    async def usage(self, organisation: str, asked: UsageSelection) -> Sequence[UsageCell]:
        """Sums over the selected entries, all of one moment, in any order. Cells without entries may be left out."""
        ...


class InflightLog(Protocol):
    """Attempts that were sent and are not yet in the ledger: what a killed process leaves for its successor.

    Survives the kill of the process, not the loss of power, unless an entry is kept. Calls are quick.
    """

    def begin(self, entry: LedgerEntry) -> None:
        """Note an attempt before it is sent, as the entry that would be booked if nothing more were heard of it.
        Raises StoreUnavailableError."""
        ...

    async def keep(self, entries: Sequence[LedgerEntry]) -> None:
        """The spool: entries of attempts that have ended, in the place of their notes; they survive the loss of power
        when this returns. Raises StoreUnavailableError: then the notes from before may still stand."""
        ...

    def end(self, *entries: LedgerEntry) -> None:
        """Forget attempts whose entries are committed. Each has the same key as the one given to `begin`."""
        ...

    def abandoned(self) -> Sequence[LedgerEntry]:
        """What an earlier process left: noted, never ended."""
        ...

    def extent(self) -> tuple[int, int]:
        """How many attempts are noted, and how many bytes it takes."""
        ...
