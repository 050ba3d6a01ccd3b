"""Webhooks on MongoDB: `webhooks`; and `webhook_books`, of which an organisation has one, written with each webhook
that is made: of two that are made at once the later begins anew, and counts the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import ASCENDING

from ..ports import Audit, Conflict, StoreConflictError
from ..webhook_records import Webhook
from .audit import add_event
from .client import Database, Document, Mongo, Session
from .times import stamp

_TIMES = ("former_until", "created_at", "updated_at")


class MongoWebhooks:
    """`persistence.ports.WebhookStore` in two collections. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def create(self, webhook: Webhook, *, at_most: int, audit: Audit[Webhook]) -> None:
        document, every = _document(webhook), _every(webhook.organisation)

        async def create(database: Database, session: Session) -> None:
            await database.webhook_books.update_one(
                {"_id": webhook.organisation}, {"$inc": {"webhooks": 1}}, upsert=True, session=session
            )
            if await database.webhooks.count_documents(every, limit=at_most, session=session) >= at_most:
                raise StoreConflictError(f"there are {at_most} webhooks", on=Conflict.FULL)
            await database.webhooks.insert_one(document, session=session)
            await add_event(database, audit(None, webhook), session)

        await self._mongo.transaction(create)

    async def of(self, organisation: str) -> Sequence[Webhook]:
        found = await self._mongo.look_up(
            lambda database: database.webhooks.find(_every(organisation)).sort("_id", ASCENDING).to_list(None)
        )
        return [_webhook(each) for each in found]

    async def by_id(self, organisation: str, webhook_id: str) -> Webhook | None:
        name = _name(organisation, webhook_id)
        found = await self._mongo.look_up(lambda database: database.webhooks.find_one({"_id": name}))
        return None if found is None else _webhook(found)

    async def save(self, webhook: Webhook, *, expected_revision: int, audit: Audit[Webhook]) -> Webhook | None:
        saved = replace(webhook, revision=expected_revision + 1)
        document = _document(saved)

        async def save(database: Database, session: Session) -> Webhook | None:
            found = await database.webhooks.find_one({"_id": document["_id"]}, session=session)
            if found is None:
                return None
            standing = _webhook(found)
            if standing.revision != expected_revision:
                text = f"the webhook has revision {standing.revision} by now"
                raise StoreConflictError(text, on=Conflict.REVISION)
            await database.webhooks.replace_one({"_id": document["_id"]}, document, session=session)
            await add_event(database, audit(standing, saved), session)
            return saved

        return await self._mongo.transaction(save)

    async def delete(self, organisation: str, webhook_id: str, *, audit: Audit[Webhook]) -> bool:
        name = _name(organisation, webhook_id)

        async def delete(database: Database, session: Session) -> bool:
            deleted = await database.webhooks.find_one_and_delete({"_id": name}, session=session)
            if deleted is not None:
                await add_event(database, audit(_webhook(deleted), None), session)
            return deleted is not None

        return await self._mongo.transaction(delete)

    async def every(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[Webhook]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Document = {} if after is None else {"_id": {"$gt": _name(*after)}}
        found = await self._mongo.report(
            lambda database: database.webhooks.find(asked).sort("_id", ASCENDING).limit(limit).to_list(limit)
        )
        return [_webhook(each) for each in found]

    async def reseal(self, webhook: Webhook, sealed: str, former: str | None) -> bool:
        name = _name(webhook.organisation, webhook.id)
        asked = {"_id": name, "sealed": webhook.sealed, "former": webhook.former}
        change = {"$set": {"sealed": sealed, "former": former}}
        result = await self._mongo.write(lambda database: database.webhooks.update_one(asked, change))
        return bool(result.matched_count)


def _name(organisation: str, webhook_id: str | MinKey | MaxKey) -> Document:
    return {"organisation": organisation, "id": webhook_id}


def _every(organisation: str) -> Document:
    return {"_id": {"$gt": _name(organisation, MinKey()), "$lt": _name(organisation, MaxKey())}}


def _document(webhook: Webhook) -> Document:
    values = asdict(webhook)
    name = _name(values.pop("organisation"), values.pop("id"))
    values |= {each: None if values[each] is None else stamp(values[each]) for each in _TIMES}
    return {"_id": name, **values, "events": list(webhook.events)}


def _webhook(found: Document) -> Webhook:
    values: dict[str, Any] = {**found, "events": tuple(found["events"])}
    return Webhook(**values.pop("_id"), **values)
