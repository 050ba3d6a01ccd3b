"""Provider keys on MongoDB: `provider_keys`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import ASCENDING

from ..ports import Audit
from ..provider_key_records import StoredProviderKey
from .audit import add_event
from .client import Database, Document, Mongo, Session
from .times import stamp


class MongoProviderKeys:
    """`persistence.ports.ProviderKeyStore` in one collection. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def put(self, key: StoredProviderKey, *, audit: Audit[StoredProviderKey]) -> None:
        name = _name(key.organisation, key.provider)
        document = {
            "_id": name,
            "sealed": key.sealed,
            "hint": key.hint,
            "created_at": stamp(key.created_at),
            "created_by": key.created_by,
        }

        async def put(database: Database, session: Session) -> None:
            before = await database.provider_keys.find_one_and_replace(
                {"_id": name}, document, upsert=True, session=session
            )
            await add_event(database, audit(None if before is None else _key(before), key), session)

        await self._mongo.transaction(put)

    async def of(self, organisation: str) -> Sequence[StoredProviderKey]:
        asked = {"_id": {"$gt": _name(organisation, MinKey()), "$lt": _name(organisation, MaxKey())}}
        found = await self._mongo.look_up(
            lambda database: database.provider_keys.find(asked).sort("_id", ASCENDING).to_list(None)
        )
        return [_key(each) for each in found]

    async def delete(self, organisation: str, provider: str, *, audit: Audit[StoredProviderKey]) -> bool:
        name = _name(organisation, provider)

        async def delete(database: Database, session: Session) -> bool:
            deleted = await database.provider_keys.find_one_and_delete({"_id": name}, session=session)
            if deleted is not None:
                await add_event(database, audit(_key(deleted), None), session)
            return deleted is not None

        return await self._mongo.transaction(delete)

    async def every(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[StoredProviderKey]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Document = {} if after is None else {"_id": {"$gt": _name(*after)}}
        found = await self._mongo.report(
            lambda database: database.provider_keys.find(asked).sort("_id", ASCENDING).limit(limit).to_list(limit)
        )
        return [_key(each) for each in found]

    async def reseal(self, key: StoredProviderKey, sealed: str) -> bool:
        asked = {"_id": _name(key.organisation, key.provider), "sealed": key.sealed}
        result = await self._mongo.write(
            lambda database: database.provider_keys.update_one(asked, {"$set": {"sealed": sealed}})
        )
        return bool(result.matched_count)


def _name(organisation: str, provider: str | MinKey | MaxKey) -> Document:
    return {"organisation": organisation, "provider": provider}


def _key(found: Document) -> StoredProviderKey:
    values: dict[str, Any] = dict(found)
    return StoredProviderKey(**values.pop("_id"), **values)
