"""Limits on MongoDB: `limits`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import ASCENDING

from ..limit_records import Limited, LimitRule
from ..ports import Audit
from .audit import add_event
from .client import Database, Document, Mongo, Session
from .times import stamp

_KEY = ("organisation", "limited", "name")


class MongoLimits:
    """`persistence.ports.LimitStore` in one collection. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def put(self, rule: LimitRule, *, audit: Audit[LimitRule]) -> None:
        name = _name(rule.organisation, rule.limited.value, rule.name)
        values = {key: _plain(value) for key, value in asdict(rule).items() if key not in _KEY}
        document = {"_id": name, **values, "updated_at": stamp(rule.updated_at)}

        async def put(database: Database, session: Session) -> None:
            before = await database.limits.find_one_and_replace({"_id": name}, document, upsert=True, session=session)
            await add_event(database, audit(None if before is None else _rule(before), rule), session)

        await self._mongo.transaction(put)

    async def of(self, organisation: str) -> Sequence[LimitRule]:
        every = {"$gt": _name(organisation, MinKey(), MinKey()), "$lt": _name(organisation, MaxKey(), MaxKey())}
        found = await self._mongo.look_up(
            lambda database: database.limits.find({"_id": every}).sort("_id", ASCENDING).to_list(None)
        )
        return [_rule(each) for each in found]

    async def delete(self, organisation: str, limited: Limited, name: str, *, audit: Audit[LimitRule]) -> bool:
        asked = {"_id": _name(organisation, limited.value, name)}

        async def delete(database: Database, session: Session) -> bool:
            deleted = await database.limits.find_one_and_delete(asked, session=session)
            if deleted is not None:
                await add_event(database, audit(_rule(deleted), None), session)
            return deleted is not None

        return await self._mongo.transaction(delete)


def _name(organisation: str, limited: str | MinKey | MaxKey, name: str | MinKey | MaxKey) -> Document:
    return {"organisation": organisation, "limited": limited, "name": name}


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return Decimal128(value) if isinstance(value, Decimal) else value


def _rule(found: Document) -> LimitRule:
    values: dict[str, Any] = {**found.pop("_id"), **found}
    values = {key: value.to_decimal() if isinstance(value, Decimal128) else value for key, value in values.items()}
    alert_at = values.get("alert_at")  # what an earlier release wrote has none
    values["alert_at"] = None if alert_at is None else tuple(alert_at)
    return LimitRule(**{**values, "limited": Limited(values["limited"])})
