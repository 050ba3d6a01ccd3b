"""API keys on MongoDB: `api_keys`; `api_key_digests`, where each is found by; and `api_key_books`, of which an
organisation has one, written with each key that is made: of two that are made at once the later begins anew, and
counts the other's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import DESCENDING, ReturnDocument

from ..key_records import ApiKey, ApiKeyFilter, Grant, PresentedKey
from ..ports import Audit, Conflict, StoreConflictError
from .audit import add_event
from .client import Database, Document, Mongo, Session
from .times import floor, stamp

_AT_ONCE = 100
_TIMES = ("created_at", "updated_at", "expires_at", "revoked_at", "last_used_at")


class MongoApiKeys:
    """`persistence.ports.ApiKeyStore` in three collections. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def create(self, key: ApiKey, digest: str, *, at_most: int, audit: Audit[ApiKey]) -> None:
        document = _document(key)
        standing = {"_id.organisation": key.organisation, **_open(key.created_at)}

        async def create(database: Database, session: Session) -> None:
            await database.api_key_books.update_one(
                {"_id": key.organisation}, {"$inc": {"keys": 1}}, upsert=True, session=session
            )
            if await database.api_keys.count_documents(standing, limit=at_most, session=session) >= at_most:
                raise StoreConflictError(f"there are {at_most} API keys", on=Conflict.FULL)
            await database.api_keys.insert_one(document, session=session)
            await database.api_key_digests.insert_one(_digest(digest, document["_id"]), session=session)
            await add_event(database, audit(None, key), session)

        await self._mongo.transaction(create)

    async def by_digest(self, digest: str) -> PresentedKey | None:
        found = await self._mongo.look_up(lambda database: database.api_key_digests.find_one({"_id": digest}))
        if found is None:
            return None
        key = await self.by_id(found["organisation"], found["key_id"])
        return None if key is None else PresentedKey(key, found.get("ends_at"))

    async def by_id(self, organisation: str, key_id: str) -> ApiKey | None:
        name = _name(organisation, key_id)
        found = await self._mongo.look_up(lambda database: database.api_keys.find_one({"_id": name}))
        return None if found is None else _key(found)

    async def page(
        self, organisation: str, *, where: ApiKeyFilter, limit: int, before: str | None = None
    ) -> Sequence[ApiKey]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        start, end = _name(organisation, MinKey()), _name(organisation, MaxKey() if before is None else before)
        asked: Document = {"_id": {"$gt": start, "$lt": end}}
        if where.opens_at is not None:
            asked |= _open(where.opens_at)
        found = await self._mongo.report(
            lambda database: database.api_keys.find(asked).sort("_id", DESCENDING).limit(limit).to_list(limit)
        )
        return [_key(each) for each in found]

    async def save(self, key: ApiKey, *, expected_revision: int, audit: Audit[ApiKey]) -> ApiKey | None:
        document = _document(key)
        changes = {name: document[name] for name in ("name", "grant", "expires_at", "updated_at")}
        return await self._change(document["_id"], changes, audit, expected=expected_revision)

    async def rotate(
        self,
        organisation: str,
        key_id: str,
        digest: str,
        *,
        hint: str,
        until: datetime,
        at: datetime,
        audit: Audit[ApiKey],
    ) -> ApiKey | None:
        name = _name(organisation, key_id)
        changes = {"hint": hint, "updated_at": stamp(at)}
        ends = stamp(until)

        async def digests(database: Database, session: Session) -> None:
            await database.api_key_digests.update_many(
                {"organisation": organisation, "key_id": key_id}, {"$min": {"ends_at": ends}}, session=session
            )
            await database.api_key_digests.insert_one(_digest(digest, name), session=session)

        return await self._change(name, changes, audit, and_then=digests)

    async def revoke(
        self, organisation: str, key_id: str, *, at: datetime, by: str, audit: Audit[ApiKey]
    ) -> ApiKey | None:
        changes = {"revoked_at": stamp(at), "revoked_by": by, "updated_at": stamp(at)}
        try:
            return await self._change(_name(organisation, key_id), changes, audit)
        except StoreConflictError:
            return await self.by_id(organisation, key_id)

    async def note_uses(self, uses: Mapping[tuple[str, str], datetime]) -> None:
        """Some at once; what is noted stays noted where the rest fails."""
        noted = [(_name(*name), {"$max": {"last_used_at": stamp(at)}}) for name, at in uses.items()]
        for start in range(0, len(noted), _AT_ONCE):
            await asyncio.gather(*(self._mongo.write(_used(*each)) for each in noted[start : start + _AT_ONCE]))

    async def _change(
        self,
        name: Document,
        changes: Document,
        audit: Audit[ApiKey],
        *,
        expected: int | None = None,
        and_then: Callable[[Database, Session], Awaitable[None]] | None = None,
    ) -> ApiKey | None:
        """Compare and set."""

        async def change(database: Database, session: Session) -> ApiKey | None:
            found = await database.api_keys.find_one({"_id": name}, session=session)
            if found is None:
                return None
            standing = _key(found)
            _check(standing, expected)
            changed = _key(
                await database.api_keys.find_one_and_update(
                    {"_id": name},
                    {"$set": changes, "$inc": {"revision": 1}},
                    return_document=ReturnDocument.AFTER,
                    session=session,
                )
            )
            if and_then is not None:
                await and_then(database, session)
            await add_event(database, audit(standing, changed), session)
            return changed

        return await self._mongo.transaction(change)


def _check(standing: ApiKey, expected: int | None) -> None:
    if standing.revoked_at is not None:
        raise StoreConflictError("the key is revoked", on=Conflict.ENDED)
    if expected is not None and standing.revision != expected:
        raise StoreConflictError(f"the key has revision {standing.revision} by now", on=Conflict.REVISION)


def _used(name: Document, change: Document) -> Callable[[Database], Awaitable[Any]]:
    return lambda database: database.api_keys.update_one({"_id": name}, change)


def _name(organisation: str, key_id: str | MinKey | MaxKey) -> Document:
    return {"organisation": organisation, "id": key_id}


def _open(now: datetime) -> Document:
    return {"revoked_at": None, "$or": [{"expires_at": None}, {"expires_at": {"$gt": floor(now)}}]}


def _digest(digest: str, name: Document) -> Document:
    return {"_id": digest, "organisation": name["organisation"], "key_id": name["id"]}


def _document(key: ApiKey) -> Document:
    values = asdict(key)
    name = _name(values.pop("organisation"), values.pop("id"))
    for each in _TIMES:
        values[each] = None if values[each] is None else stamp(values[each])
    return {"_id": name, **values}


def _key(found: Document) -> ApiKey:
    values: dict[str, Any] = dict(found)
    name = values.pop("_id")
    given = values.pop("grant").items()
    listed: dict[str, Any] = {each: None if texts is None else tuple(texts) for each, texts in given}
    return ApiKey(**name, **values, grant=Grant(**listed))
