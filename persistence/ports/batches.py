"""Batches, which the document store is the truth of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ..batch_records import Batch, BatchFilter, BatchState, Item, ItemState, Move, VendorRun
from .audit import Audit


class BatchStore(Protocol):
    """Batches and their items. Every method raises StoreUnavailableError, and ValueError for what can't be stored.

    `active`, `ended`, `unopened` and `lead` are the dispatcher's, and the only reads without an organisation.
    """

    async def begin(self, batch: Batch) -> None:
        """Room for its items. Nobody sees it until it is opened; its counts and its idempotency key come then."""
        ...

    async def add(self, items: Sequence[Item]) -> None:
        """Items of a batch that is not opened yet, all of them WAITING."""
        ...

    async def open(self, batch: Batch, *, at_most: int, audit: Audit[Batch]) -> Batch:
        """From now on it is there, as given. Where the organisation has one with the same idempotency key, that one is
        returned, and nothing is written. Raises StoreConflictError where it has `at_most` that have not ended
        (FULL)."""
        ...

    async def discard(self, organisation: str, batch_id: str) -> None:
        """One that was never opened, or is closed, with its items: many of them in steps, of which each stays done."""
        ...

    async def unopened(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """Organisation and id of those that were begun before, and never opened, or are closed."""
        ...

    async def ended(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        """Organisation and id of those that ended before, the oldest first."""
        ...

    async def close(self, organisation: str, batch_id: str, *, before: datetime) -> bool:
        """Whether it ended before, and is seen by nobody from now on: it only remains to be discarded."""
        ...

    async def by_id(self, organisation: str, batch_id: str) -> Batch | None: ...

    async def by_key(self, organisation: str, idempotency_key: str) -> Batch | None: ...

    async def page(
        self, organisation: str, *, where: BatchFilter, limit: int, before: str | None = None
    ) -> Sequence[Batch]:
        """The newest first; `before`: with lesser ids alone."""
        ...

    async def active(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[Batch]:
        """Every organisation's that have not ended, by organisation and id; `after` those two."""
        ...

    async def change(
        self,
        organisation: str,
        batch_id: str,
        *,
        expects: Sequence[BatchState],
        values: Mapping[str, Any],
        audit: Audit[Batch] | None = None,
    ) -> Batch | None:
        """Sets fields of a batch that is in one of those states, and returns it as it is then; None where it is in
        another, or the organisation has none such. Its items stay as they are."""
        ...

    async def items(
        self,
        organisation: str,
        batch_id: str,
        *,
        states: Sequence[ItemState] = (),
        limit: int,
        after: int = -1,
    ) -> Sequence[Item]:
        """With their texts, by index; `after`: with greater ones alone. `states` empty: in any."""
        ...

    async def due(
        self, organisation: str, batch_id: str, *, states: Sequence[ItemState], now: datetime, limit: int
    ) -> Sequence[Item]:
        """Those of the states that are due by `now`, in the order in which they were. Without their texts."""
        ...

    async def of_vendor_run(self, organisation: str, batch_id: str, number: int) -> Sequence[Item]:
        """The items that are in that vendor's batch. Without their texts."""
        ...

    async def move(self, moves: Sequence[Move]) -> Sequence[Item | None]:
        """Each as it is then, None where it was not as expected; with it, all or nothing, its batch's counts and cost,
        though where the process dies meanwhile, those may lag behind until they are mended. Where it raises, some may
        be moved. Texts are there where a move claims. No two moves are of the same item."""
        ...

    async def mend(self, organisation: str, batch_id: str, *, before: datetime) -> int:
        """Counts what was moved before then, and not counted: of how many items. Nobody moves those until then."""
        ...

    async def lead(self, name: str, holder: str, *, now: datetime, until: datetime) -> bool:
        """Whether `holder` leads in `name` until then: nobody else does at `now`, or he did already."""
        ...

    async def resign(self, name: str, holder: str) -> None:
        """He leads no more, if he did."""
        ...

    async def add_vendor_run(self, run: VendorRun) -> bool:
        """Whether it is the first of its number: nothing is written where there is one."""
        ...

    async def save_vendor_run(self, run: VendorRun) -> None:
        """In the place of what is there under its number. One that has ended stays as it is."""
        ...

    async def vendor_runs(self, organisation: str, batch_id: str) -> Sequence[VendorRun]:
        """By number."""
        ...

    async def unended_vendor_runs(self, organisation: str) -> Sequence[VendorRun]:
        """Of all its batches."""
        ...
