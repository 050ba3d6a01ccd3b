"""The outbox of webhooks on MongoDB: `webhook_events` and `webhook_deliveries`. A delivery has `due_at` while it is to
be tried, and no longer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from bson.max_key import MaxKey
from pymongo import ASCENDING, DESCENDING, ReturnDocument

from ..webhook_records import DeliveryState, WebhookDelivery, WebhookEvent
from .client import Database, Document, Mongo, Session
from .times import floor, stamp

FORGOTTEN_AT_ONCE = 1_000

_TIMES = ("due_at", "attempted_at", "created_at")
_OUTCOME = ("state", "attempts_at_most", "status", "reason", "attempted_at")


class MongoWebhookOutbox:
    """`persistence.ports.WebhookOutbox` in two collections. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def add(self, event: WebhookEvent, deliveries: Sequence[WebhookDelivery]) -> bool:
        name = _name(event.organisation, event.id)
        noted = {"_id": name, "type": event.type, "at": stamp(event.at)}
        documents = [_document(each) for each in deliveries]

        async def add(database: Database, session: Session) -> bool:
            """Two at once write the same event: the later begins anew, and finds it."""
            if await database.webhook_events.find_one({"_id": name}, session=session) is not None:
                return False
            await database.webhook_events.insert_one(noted, session=session)
            if documents:
                await database.webhook_deliveries.insert_many(documents, session=session)
            return True

        return await self._mongo.transaction(add)

    async def claim(
        self, *, now: datetime, until: datetime, busy: Collection[str], resting: Collection[str]
    ) -> WebhookDelivery | None:
        asked = {
            "due_at": {"$lte": floor(now)},
            "_id.organisation": {"$nin": list(busy)},
            "webhook_id": {"$nin": list(resting)},
        }
        change = {"$set": {"due_at": floor(until)}, "$inc": {"attempts": 1}}
        found = await self._mongo.write(
            lambda database: database.webhook_deliveries.find_one_and_update(
                asked, change, sort=[("due_at", ASCENDING)], return_document=ReturnDocument.AFTER
            )
        )
        return None if found is None else _delivery(found)

    async def record(self, delivery: WebhookDelivery) -> bool:
        return await self._change(delivery, {"state": DeliveryState.PENDING.value})

    async def again(self, delivery: WebhookDelivery) -> bool:
        return await self._change(delivery, {"state": {"$ne": DeliveryState.PENDING.value}})

    async def by_id(self, organisation: str, delivery_id: str) -> WebhookDelivery | None:
        name = _name(organisation, delivery_id)
        found = await self._mongo.look_up(lambda database: database.webhook_deliveries.find_one({"_id": name}))
        return None if found is None else _delivery(found)

    async def page(
        self, organisation: str, webhook_id: str, *, limit: int, before: str | None = None
    ) -> Sequence[WebhookDelivery]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Document = {**_of(organisation, webhook_id), "_id.id": {"$lt": MaxKey() if before is None else before}}
        order = [("_id.id", DESCENDING)]
        found = await self._mongo.report(
            lambda database: database.webhook_deliveries.find(asked).sort(order).limit(limit).to_list(limit)
        )
        return [_delivery(each) for each in found]

    async def waiting(self, organisation: str, webhook_id: str, *, at_most: int) -> int:
        asked = {**_of(organisation, webhook_id), "state": DeliveryState.PENDING.value}
        found: int = await self._mongo.look_up(
            lambda database: database.webhook_deliveries.count_documents(asked, limit=at_most)
        )
        return found

    async def forget(self, *, deliveries_before: datetime, events_before: datetime) -> int:
        old = {"created_at": {"$lt": floor(deliveries_before)}, "state": {"$ne": DeliveryState.PENDING.value}}
        deliveries = await self._forget("webhook_deliveries", old)
        return deliveries + await self._forget("webhook_events", {"at": {"$lt": floor(events_before)}})

    async def _forget(self, collection: str, old: Document) -> int:
        found = await self._mongo.report(
            lambda database: database[collection].find(old, {"_id": 1}).limit(FORGOTTEN_AT_ONCE).to_list(None)
        )
        if not found:
            return 0
        those = {"_id": {"$in": [each["_id"] for each in found]}}
        result = await self._mongo.write(lambda database: database[collection].delete_many({**those, **old}))
        return int(result.deleted_count)

    async def _change(self, delivery: WebhookDelivery, standing: Document) -> bool:
        document = _document(delivery)
        asked = {"_id": document["_id"], "attempts": delivery.attempts, **standing}
        due = {"$unset": {"due_at": ""}} if delivery.due_at is None else {}
        set_ = {name: document[name] for name in (*_OUTCOME, "due_at") if name in document}
        result = await self._mongo.write(
            lambda database: database.webhook_deliveries.update_one(asked, {"$set": set_, **due})
        )
        return bool(result.matched_count)


def _name(organisation: str, each: str) -> Document:
    return {"organisation": organisation, "id": each}


def _of(organisation: str, webhook_id: str) -> Document:
    return {"_id.organisation": organisation, "webhook_id": webhook_id}


def _document(delivery: WebhookDelivery) -> Document:
    values = asdict(delivery)
    name = _name(values.pop("organisation"), values.pop("id"))
    values |= {each: None if values[each] is None else stamp(values[each]) for each in _TIMES}
    if values["due_at"] is None:
        del values["due_at"]
    return {"_id": name, **values, "state": delivery.state.value}


def _delivery(found: Document) -> WebhookDelivery:
    values: dict[str, Any] = {"due_at": None, **found, "state": DeliveryState(found["state"])}
    return WebhookDelivery(**values.pop("_id"), **values)
