"""Batches and files in memory, for tests of the use cases."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from persistence.audit_records import AuditEvent
from persistence.batch_moves import changes, moved
from persistence.batch_records import Batch, BatchFilter, BatchState, Counts, Item, ItemState, Move, Text, VendorRun
from persistence.object_records import StoredObject
from persistence.ports import Audit, Conflict, StoreConflictError, StoreUnavailableError

Key = tuple[str, str]


class MemoryBatches:
    """`persistence.ports.BatchStore` in memory. `down` fails every call; `events` is what was noted."""

    def __init__(self) -> None:
        self.batches: dict[Key, Batch] = {}
        self.begun: dict[Key, Batch] = {}
        self.kept: dict[Key, dict[int, Item]] = {}
        self.runs: dict[tuple[str, str, int], VendorRun] = {}
        self.leaders: dict[str, tuple[str, datetime]] = {}
        self.events: list[AuditEvent] = []
        self.moves: list[Sequence[Move]] = []
        self.down = False

    async def begin(self, batch: Batch) -> None:
        self._check()
        self.begun[batch.organisation, batch.id] = batch
        self.kept[batch.organisation, batch.id] = {}

    async def add(self, items: Sequence[Item]) -> None:
        self._check()
        for item in items:
            self.kept[item.organisation, item.batch][item.index] = item

    async def open(self, batch: Batch, *, at_most: int, audit: Audit[Batch]) -> Batch:
        self._check()
        if batch.idempotency_key is not None:
            standing = await self.by_key(batch.organisation, batch.idempotency_key)
            if standing is not None:
                return standing
        mine = [each for each in self.batches.values() if each.organisation == batch.organisation]
        if sum(each.ended_at is None for each in mine) >= at_most:
            raise StoreConflictError(f"there are {at_most}", on=Conflict.FULL)
        self.begun.pop((batch.organisation, batch.id))
        self.batches[batch.organisation, batch.id] = batch
        self.events.append(audit(None, batch))
        return batch

    async def discard(self, organisation: str, batch_id: str) -> None:
        self._check()
        if self.begun.pop((organisation, batch_id), None) is not None:
            self.kept.pop((organisation, batch_id))
            self.runs = {name: run for name, run in self.runs.items() if name[:2] != (organisation, batch_id)}

    async def unopened(self, *, before: datetime, limit: int) -> Sequence[Key]:
        self._check()
        return [name for name, each in self.begun.items() if each.created_at < before][:limit]

    async def ended(self, *, before: datetime, limit: int) -> Sequence[Key]:
        self._check()
        found = [(each.ended_at, name) for name, each in self.batches.items() if each.ended_at is not None]
        return [name for at, name in sorted(found) if at < before][:limit]

    async def close(self, organisation: str, batch_id: str, *, before: datetime) -> bool:
        self._check()
        found = self.batches.get((organisation, batch_id))
        if found is None or found.ended_at is None or found.ended_at >= before:
            return False
        self.begun[organisation, batch_id] = self.batches.pop((organisation, batch_id))
        return True

    async def by_id(self, organisation: str, batch_id: str) -> Batch | None:
        self._check()
        return self.batches.get((organisation, batch_id))

    async def by_key(self, organisation: str, idempotency_key: str) -> Batch | None:
        self._check()
        mine = (each for each in self.batches.values() if each.organisation == organisation)
        return next((each for each in mine if each.idempotency_key == idempotency_key), None)

    async def page(
        self, organisation: str, *, where: BatchFilter, limit: int, before: str | None = None
    ) -> Sequence[Batch]:
        self._check()
        if limit < 1:
            raise ValueError("limit must be at least 1")
        mine = [each for each in self.batches.values() if each.organisation == organisation]
        found = [each for each in mine if not where.states or each.state in where.states]
        newest = sorted(found, key=lambda each: each.id, reverse=True)
        return [each for each in newest if before is None or each.id < before][:limit]

    async def active(self, *, limit: int, after: Key | None = None) -> Sequence[Batch]:
        self._check()
        names = sorted(name for name, each in self.batches.items() if each.ended_at is None)
        return [self.batches[name] for name in names if after is None or name > after][:limit]

    async def change(
        self,
        organisation: str,
        batch_id: str,
        *,
        expects: Sequence[BatchState],
        values: Mapping[str, Any],
        audit: Audit[Batch] | None = None,
    ) -> Batch | None:
        self._check()
        standing = self.batches.get((organisation, batch_id))
        if standing is None or standing.state not in expects:
            return None
        changed = self.batches[organisation, batch_id] = replace(standing, **values)
        if audit is not None:
            self.events.append(audit(standing, changed))
        return changed

    async def items(
        self,
        organisation: str,
        batch_id: str,
        *,
        states: Sequence[ItemState] = (),
        limit: int,
        after: int = -1,
    ) -> Sequence[Item]:
        self._check()
        if limit < 1:
            raise ValueError("limit must be at least 1")
        found = [each for each in self._items(organisation, batch_id) if not states or each.state in states]
        return [each for each in found if each.index > after][:limit]

    async def due(
        self, organisation: str, batch_id: str, *, states: Sequence[ItemState], now: datetime, limit: int
    ) -> Sequence[Item]:
        self._check()
        mine = [each for each in self._items(organisation, batch_id) if each.state in states]
        found = [(each.due, each.index, each) for each in mine if each.due is not None and each.due <= now]
        return [_lean(each) for _, _, each in sorted(found, key=lambda one: one[:2])[:limit]]

    async def of_vendor_run(self, organisation: str, batch_id: str, number: int) -> Sequence[Item]:
        self._check()
        mine = self._items(organisation, batch_id)
        return [_lean(each) for each in mine if each.state is ItemState.RUNNING and each.vendor_run == number]

    async def move(self, moves: Sequence[Move]) -> Sequence[Item | None]:
        self._check()
        self.moves.append(moves)
        pairs: list[tuple[Item, Item] | None] = []
        for move in moves:
            before = self.kept.get((move.organisation, move.batch), {}).get(move.index)
            after = None if before is None else moved(before, move)
            pairs.append(None if before is None or after is None else (before, after))
            if after is not None:
                self.kept[move.organisation, move.batch][move.index] = after
        for name, change in changes(pair for pair in pairs if pair is not None).items():
            batch = self.batches[name]
            counts = {state.value: getattr(batch.counts, state) + change.counts[state] for state in ItemState}
            cost, unpriced = batch.cost + change.cost, batch.unpriced + change.unpriced
            self.batches[name] = replace(batch, counts=Counts(**counts), cost=cost, unpriced=unpriced)
        return [None if pair is None else pair[1] for pair in pairs]

    async def mend(self, organisation: str, batch_id: str, *, before: datetime) -> int:
        return 0

    async def lead(self, name: str, holder: str, *, now: datetime, until: datetime) -> bool:
        self._check()
        leader = self.leaders.get(name)
        if leader is not None and leader[0] != holder and leader[1] > now:
            return False
        self.leaders[name] = holder, until
        return True

    async def resign(self, name: str, holder: str) -> None:
        self._check()
        if self.leaders.get(name, ("", None))[0] == holder:
            del self.leaders[name]

    async def add_vendor_run(self, run: VendorRun) -> bool:
        self._check()
        return self.runs.setdefault((run.organisation, run.batch, run.number), run) is run

    async def save_vendor_run(self, run: VendorRun) -> None:
        self._check()
        if not self.runs[run.organisation, run.batch, run.number].ended:
            self.runs[run.organisation, run.batch, run.number] = run

    async def vendor_runs(self, organisation: str, batch_id: str) -> Sequence[VendorRun]:
        self._check()
        return [run for name, run in sorted(self.runs.items()) if name[:2] == (organisation, batch_id)]

    async def unended_vendor_runs(self, organisation: str) -> Sequence[VendorRun]:
        self._check()
        return [run for _, run in sorted(self.runs.items()) if run.organisation == organisation and not run.ended]

    def _items(self, organisation: str, batch_id: str) -> Sequence[Item]:
        return [each for _, each in sorted(self.kept.get((organisation, batch_id), {}).items())]

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("down")


def _lean(item: Item) -> Item:
    return replace(item, input=Text(), result=None)


class MemoryObjects:
    """`persistence.ports.ObjectStore` in memory. `down` fails every call."""

    def __init__(self) -> None:
        self.files: dict[Key, bytes] = {}
        self.forgotten: list[tuple[datetime, str]] = []
        self.down = False

    async def put(self, organisation: str, name: str, content: AsyncIterable[bytes]) -> int:
        self._check()
        whole = b"".join([chunk async for chunk in content])
        self.files[organisation, name] = whole
        return len(whole)

    async def get(self, organisation: str, name: str) -> AsyncGenerator[bytes, None]:
        self._check()
        if (organisation, name) not in self.files:
            raise FileNotFoundError(name)
        whole = self.files[organisation, name]
        for start in range(0, len(whole), 1000):
            yield whole[start : start + 1000]

    async def about(self, organisation: str, name: str) -> StoredObject | None:
        self._check()
        found = self.files.get((organisation, name))
        return None if found is None else StoredObject(name, len(found), datetime.now(UTC))

    async def page(
        self, organisation: str, *, prefix: str = "", limit: int, after: str | None = None
    ) -> Sequence[StoredObject]:
        self._check()
        mine = sorted(name for owner, name in self.files if owner == organisation and name.startswith(prefix))
        found = [name for name in mine if after is None or name > after][:limit]
        return [StoredObject(name, len(self.files[organisation, name]), datetime.now(UTC)) for name in found]

    async def delete(self, organisation: str, name: str) -> None:
        self._check()
        self.files.pop((organisation, name), None)

    async def upload_link(self, organisation: str, name: str, *, seconds: float) -> str:
        self._check()
        return f"/files?put={organisation}/{name}"

    async def download_link(self, organisation: str, name: str, *, seconds: float) -> str:
        self._check()
        return f"/files?get={organisation}/{name}"

    async def forget_older(self, than: datetime, *, prefix: str = "") -> int:
        self._check()
        self.forgotten.append((than, prefix))
        return 0

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("down")
