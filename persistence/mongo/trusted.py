"""Registered documents on MongoDB: `trusted_documents`."""

from __future__ import annotations

from collections.abc import Sequence

from pymongo import ASCENDING, UpdateOne

from ..trusted_records import TrustedDocument
from .client import Database, Mongo, Session
from .times import stamp


class MongoTrustedDocuments:
    """`persistence.ports.TrustedDocumentStore` in one collection. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def register(self, documents: Sequence[TrustedDocument]) -> int:
        adding = [
            UpdateOne(
                {"_id": each.sha256},
                {"$setOnInsert": {"text": each.text, "name": each.name, "registered_at": stamp(each.registered_at)}},
                upsert=True,
            )
            for each in documents
        ]

        async def add(database: Database, session: Session) -> int:
            added = await database.trusted_documents.bulk_write(adding, session=session)
            return int(added.upserted_count)

        return await self._mongo.transaction(add) if adding else 0

    async def text(self, sha256: str) -> str | None:
        found = await self._mongo.look_up(
            lambda database: database.trusted_documents.find_one({"_id": sha256}, {"text": True})
        )
        return None if found is None else str(found["text"])

    async def remove(self, sha256: str) -> bool:
        removed = await self._mongo.write(lambda database: database.trusted_documents.delete_one({"_id": sha256}))
        return int(removed.deleted_count) > 0

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[TrustedDocument]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        found = await self._mongo.report(
            lambda database: (
                database.trusted_documents.find({"_id": {"$gt": after or ""}})
                .sort("_id", ASCENDING)
                .limit(limit)
                .to_list(None)
            )
        )
        return [TrustedDocument(each["_id"], each["text"], each["name"], each["registered_at"]) for each in found]
