"""Batches on MongoDB: `batches`, `batch_items`, `batch_vendor_runs`, and `leaders`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, is_dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from ..batch_records import Batch, BatchFilter, BatchState, Item, ItemState, Move, VendorRun
from ..ports import Audit, Conflict, StoreConflictError
from .audit import add_event
from .batch_documents import (
    batch_document,
    batch_name,
    batch_of,
    item_document,
    item_name,
    item_of,
    plain,
    run_document,
    run_name,
    run_of,
)
from .batch_moving import LEAN, MongoMoves
from .client import Database, Document, Mongo, Session
from .times import floor, stamp

DISCARDED_AT_ONCE = 1_000
"""Items: well within the time that a write may take."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _KeyTakenError(Exception):
    """Another batch of the organisation has the idempotency key."""


class MongoBatches:
    """`persistence.ports.BatchStore` in a few collections. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._moves = MongoMoves(mongo)

    async def begin(self, batch: Batch) -> None:
        document = {**batch_document(batch), "opened": False}
        await self._mongo.write(lambda database: database.batches.insert_one(document))

    async def add(self, items: Sequence[Item]) -> None:
        documents = [item_document(item) for item in items]
        await self._mongo.write(lambda database: database.batch_items.insert_many(documents, ordered=False))

    async def open(self, batch: Batch, *, at_most: int, audit: Audit[Batch]) -> Batch:
        document = {**batch_document(batch), "opened": True}
        unended = {"_id.organisation": batch.organisation, "ended_at": None, "opened": True}

        async def open_(database: Database, session: Session) -> Batch:
            count = await database.batches.count_documents(unended, limit=at_most, session=session)
            if count >= at_most:
                raise StoreConflictError(f"there are {at_most} batches that have not ended", on=Conflict.FULL)
            try:
                await database.batches.replace_one({"_id": document["_id"]}, document, session=session)
            except DuplicateKeyError:
                raise _KeyTakenError from None
            await add_event(database, audit(None, batch), session)
            return batch

        key = batch.idempotency_key
        while True:
            if key is not None and (standing := await self.by_key(batch.organisation, key)) is not None:
                return standing
            with suppress(_KeyTakenError):  # by another that was opened at that moment: it is found now
                return await self._mongo.transaction(open_)

    async def discard(self, organisation: str, batch_id: str) -> None:
        unopened = {"_id": batch_name(organisation, batch_id), "opened": False}
        if await self._mongo.report(lambda database: database.batches.find_one(unopened)) is None:
            return
        every = _range(item_name, organisation, batch_id)
        while last := await self._mongo.report(partial(_last_of_many, every)):
            step = {"_id": {"$gt": every["$gt"], "$lte": last}}
            await self._mongo.write(partial(_delete_items, step))
        runs = _range(run_name, organisation, batch_id)
        await self._mongo.write(lambda database: database.batch_vendor_runs.delete_many({"_id": runs}))
        await self._mongo.write(lambda database: database.batches.delete_one(unopened))

    async def unopened(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        asked = {"opened": False, "created_at": {"$lt": stamp(before)}}
        found = await self._mongo.report(
            lambda database: database.batches.find(asked).hint("unopened").limit(limit).to_list(limit)
        )
        return [(each["_id"]["organisation"], each["_id"]["id"]) for each in found]

    async def ended(self, *, before: datetime, limit: int) -> Sequence[tuple[str, str]]:
        asked = {"ended_at": {"$lt": stamp(before)}, "opened": True}
        found = await self._mongo.report(
            lambda database: database.batches.find(asked).sort("ended_at", ASCENDING).limit(limit).to_list(limit)
        )
        return [(each["_id"]["organisation"], each["_id"]["id"]) for each in found]

    async def close(self, organisation: str, batch_id: str, *, before: datetime) -> bool:
        asked = {"_id": batch_name(organisation, batch_id), "ended_at": {"$lt": stamp(before)}, "opened": True}
        closed = {"$set": {"opened": False}}
        done = await self._mongo.write(lambda database: database.batches.update_one(asked, closed))
        return done.modified_count > 0

    async def by_id(self, organisation: str, batch_id: str) -> Batch | None:
        asked = {"_id": batch_name(organisation, batch_id), "opened": True}
        found = await self._mongo.look_up(lambda database: database.batches.find_one(asked))
        return None if found is None else batch_of(found)

    async def by_key(self, organisation: str, idempotency_key: str) -> Batch | None:
        asked = {"_id.organisation": organisation, "idempotency_key": idempotency_key, "opened": True}
        found = await self._mongo.look_up(lambda database: database.batches.find_one(asked))
        return None if found is None else batch_of(found)

    async def page(
        self, organisation: str, *, where: BatchFilter, limit: int, before: str | None = None
    ) -> Sequence[Batch]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        bounds = batch_name(organisation, MinKey()), batch_name(organisation, MaxKey() if before is None else before)
        asked: Document = {"_id": {"$gt": bounds[0], "$lt": bounds[1]}, "opened": True, **_among(where.states)}
        found = await self._mongo.report(
            lambda database: database.batches.find(asked).sort("_id", DESCENDING).limit(limit).to_list(limit)
        )
        return [batch_of(each) for each in found]

    async def active(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[Batch]:
        asked: Document = {"ended_at": None, "opened": True}
        if after is not None:
            name, batch_id = after
            behind = [{"_id.organisation": {"$gt": name}}, {"_id.organisation": name, "_id.id": {"$gt": batch_id}}]
            asked["$or"] = behind
        order = [("_id.organisation", ASCENDING), ("_id.id", ASCENDING)]
        found = await self._mongo.look_up(
            lambda database: database.batches.find(asked).sort(order).limit(limit).to_list(limit)
        )
        return [batch_of(each) for each in found]

    async def change(
        self,
        organisation: str,
        batch_id: str,
        *,
        expects: Sequence[BatchState],
        values: Mapping[str, Any],
        audit: Audit[Batch] | None = None,
    ) -> Batch | None:
        asked = {"_id": batch_name(organisation, batch_id), "opened": True, **_among(expects)}
        update = {"$set": {name: plain(asdict(each) if is_dataclass(each) else each) for name, each in values.items()}}  # type: ignore[arg-type]  # no classes

        async def change(database: Database, session: Session | None) -> tuple[Batch, Batch] | None:
            before = await database.batches.find_one_and_update(asked, update, session=session)
            if before is None:
                return None
            standing = batch_of(before)
            return standing, replace(standing, **values)

        async def audited(database: Database, session: Session) -> tuple[Batch, Batch] | None:
            changed = await change(database, session)
            if changed is not None and audit is not None:
                await add_event(database, audit(*changed), session)
            return changed

        if audit is None:  # without a transaction, which would outlive a process that is killed
            changed = await self._mongo.write(lambda database: change(database, None))
        else:
            changed = await self._mongo.transaction(audited)
        return None if changed is None else changed[1]

    async def items(
        self,
        organisation: str,
        batch_id: str,
        *,
        states: Sequence[ItemState] = (),
        limit: int,
        after: int = -1,
    ) -> Sequence[Item]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Document = {"_id.organisation": organisation, "_id.batch": batch_id, "_id.index": {"$gt": after}}
        order = [("_id.index", ASCENDING)]
        if states:
            asked |= _among(states)
        else:
            bounds = item_name(organisation, batch_id, after), item_name(organisation, batch_id, MaxKey())
            asked, order = {"_id": {"$gt": bounds[0], "$lt": bounds[1]}}, [("_id", ASCENDING)]
        found = await self._mongo.report(
            lambda database: database.batch_items.find(asked).sort(order).limit(limit).to_list(limit)
        )
        return [item_of(each) for each in found]

    async def due(
        self, organisation: str, batch_id: str, *, states: Sequence[ItemState], now: datetime, limit: int
    ) -> Sequence[Item]:
        found: list[Item] = []
        order = [("due", ASCENDING), ("_id.index", ASCENDING)]
        until = {"$lte": floor(now)}
        for state in states:
            asked = {"_id.organisation": organisation, "_id.batch": batch_id, "state": state.value, "due": until}
            found += map(item_of, await self._mongo.look_up(partial(_lean, asked, order, limit)))
        return sorted(found, key=lambda item: (item.due or _EPOCH, item.index))[:limit]

    async def of_vendor_run(self, organisation: str, batch_id: str, number: int) -> Sequence[Item]:
        asked = {
            "_id.organisation": organisation,
            "_id.batch": batch_id,
            "state": ItemState.RUNNING.value,
            "vendor_run": number,
        }
        order = [("_id.index", ASCENDING)]
        return [item_of(each) for each in await self._mongo.report(partial(_lean, asked, order, None))]

    async def move(self, moves: Sequence[Move]) -> Sequence[Item | None]:
        return await self._moves.move(moves, _now()) if moves else []

    async def mend(self, organisation: str, batch_id: str, *, before: datetime) -> int:
        return await self._moves.mend(organisation, batch_id, before)

    async def lead(self, name: str, holder: str, *, now: datetime, until: datetime) -> bool:
        free = {"_id": name, "$or": [{"holder": holder}, {"until": {"$lte": floor(now)}}]}
        claim = {"$set": {"holder": holder, "until": stamp(until)}}

        async def lead(database: Database) -> bool:
            try:
                await database.leaders.update_one(free, claim, upsert=True)
            except DuplicateKeyError:  # somebody else does
                return False
            return True

        return await self._mongo.write(lead)

    async def resign(self, name: str, holder: str) -> None:
        await self._mongo.write(lambda database: database.leaders.delete_one({"_id": name, "holder": holder}))

    async def add_vendor_run(self, run: VendorRun) -> bool:
        document = run_document(run)

        async def add(database: Database) -> bool:
            try:
                await database.batch_vendor_runs.insert_one(document)
            except DuplicateKeyError:
                return False
            return True

        return await self._mongo.write(add)

    async def save_vendor_run(self, run: VendorRun) -> None:
        document = run_document(run)
        unended = {"_id": document["_id"], "ended": False}
        await self._mongo.write(lambda database: database.batch_vendor_runs.replace_one(unended, document))

    async def vendor_runs(self, organisation: str, batch_id: str) -> Sequence[VendorRun]:
        every = _range(run_name, organisation, batch_id)
        found = await self._mongo.look_up(
            lambda database: database.batch_vendor_runs.find({"_id": every}).sort("_id", ASCENDING).to_list(None)
        )
        return [run_of(each) for each in found]

    async def unended_vendor_runs(self, organisation: str) -> Sequence[VendorRun]:
        every = {"$gt": run_name(organisation, MinKey(), MinKey()), "$lt": run_name(organisation, MaxKey(), MaxKey())}
        asked = {"_id": every, "ended": False}
        found = await self._mongo.report(lambda database: database.batch_vendor_runs.find(asked).to_list(None))
        return [run_of(each) for each in found]


def _range(name: Any, organisation: str, batch: str) -> Document:
    return {"$gt": name(organisation, batch, MinKey()), "$lt": name(organisation, batch, MaxKey())}


def _among(states: Sequence[BatchState] | Sequence[ItemState]) -> Document:
    return {"state": {"$in": [state.value for state in states]}} if states else {}


async def _last_of_many(every: Document, database: Database) -> Document | None:
    """The name of the last of so many items as are deleted at once; None where there are none."""
    names = database.batch_items.find({"_id": every}, {"_id": 1}).sort("_id", ASCENDING).limit(DISCARDED_AT_ONCE)
    found: list[Document] = await names.to_list(DISCARDED_AT_ONCE)
    return found[-1]["_id"] if found else None


async def _delete_items(named: Document, database: Database) -> None:
    await database.batch_items.delete_many(named)


async def _lean(asked: Document, order: Any, limit: int | None, database: Database) -> list[Document]:
    """Without their texts."""
    found: list[Document] = await database.batch_items.find(asked, LEAN).sort(order).limit(limit or 0).to_list(limit)
    return found


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
