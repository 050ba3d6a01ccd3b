"""The audit log on MongoDB: `audit_events`. What changed is kept as the JSON text that it is, as drafts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import DESCENDING

from ..audit_records import AuditEvent, AuditFilter, first_id
from .client import Database, Document, Mongo, Session
from .times import stamp

_PLAIN = ("actor", "key_id", "address", "request_id", "action", "subject_kind", "subject_id")
_EQUAL = ("action", "subject_id", "actor")


class MongoAuditLog:
    """`persistence.ports.AuditStore` in one collection. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def append(self, event: AuditEvent) -> None:
        document = _document(event)
        await self._mongo.write(lambda database: database.audit_events.insert_one(document))

    async def page(
        self, organisation: str, *, where: AuditFilter, limit: int, before: str | None = None
    ) -> Sequence[AuditEvent]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Document = {name: value for name in _EQUAL if (value := getattr(where, name)) is not None}
        scope: Document = {"_id.organisation": organisation, "_id.id": _between(where, before), **asked}
        if not asked:
            bounds = {operator: _name(organisation, each) for operator, each in scope["_id.id"].items()}
            scope = {"_id": {"$gt": _name(organisation, MinKey()), "$lt": _name(organisation, MaxKey()), **bounds}}
        order = [("_id.id", DESCENDING)] if asked else [("_id", DESCENDING)]
        found = await self._mongo.report(
            lambda database: database.audit_events.find(scope).sort(order).limit(limit).to_list(limit)
        )
        return [_event(each) for each in found]


async def add_event(database: Database, event: AuditEvent, session: Session) -> None:
    """Beside the write that it tells of, in its transaction."""
    await database.audit_events.insert_one(_document(event), session=session)


def _between(where: AuditFilter, before: str | None) -> Document:
    ends = [each for each in (before, None if where.until is None else first_id(where.until)) if each is not None]
    bounds: Document = {"$gte": MinKey() if where.since is None else first_id(where.since)}
    return {**bounds, "$lt": min(ends)} if ends else bounds


def _name(organisation: str, event_id: str | MinKey | MaxKey) -> Document:
    return {"organisation": organisation, "id": event_id}


def _document(event: AuditEvent) -> Document:
    return {
        "_id": _name(event.organisation, event.id),
        "at": stamp(event.at),
        **{name: getattr(event, name) for name in _PLAIN},
        "before": _json(event.before),
        "after": _json(event.after),
    }


def _json(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else orjson.dumps(values).decode()


def _event(found: Document) -> AuditEvent:
    values: dict[str, Any] = dict(found)
    for name in ("before", "after"):
        values[name] = None if values[name] is None else orjson.loads(values[name])
    return AuditEvent(**values.pop("_id"), **values)
