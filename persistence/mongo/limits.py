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
from .client import Document, Mongo
from .times import stamp

_KEY = ("organisation", "limited", "name")


class MongoLimits:
    """`persistence.ports.LimitStore` in one collection. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def put(self, rule: LimitRule) -> None:
        name = _name(rule.organisation, rule.limited.value, rule.name)
        values = {key: _plain(value) for key, value in asdict(rule).items() if key not in _KEY}
        document = {"_id": name, **values, "updated_at": stamp(rule.updated_at)}
        await self._mongo.write(lambda database: database.limits.replace_one({"_id": name}, document, upsert=True))

    async def of(self, organisation: str) -> Sequence[LimitRule]:
        every = {"$gt": _name(organisation, MinKey(), MinKey()), "$lt": _name(organisation, MaxKey(), MaxKey())}
        found = await self._mongo.look_up(
            lambda database: database.limits.find({"_id": every}).sort("_id", ASCENDING).to_list(None)
        )
        return [_rule(each) for each in found]

    async def delete(self, organisation: str, limited: Limited, name: str) -> bool:
        asked = {"_id": _name(organisation, limited.value, name)}
        result = await self._mongo.write(lambda database: database.limits.delete_one(asked))
        return bool(result.deleted_count)


def _name(organisation: str, limited: str | MinKey | MaxKey, name: str | MinKey | MaxKey) -> Document:
    return {"organisation": organisation, "limited": limited, "name": name}


def _plain(value: object) -> object:
    return Decimal128(value) if isinstance(value, Decimal) else value


def _rule(found: Document) -> LimitRule:
    values: dict[str, Any] = {**found.pop("_id"), **found}
    values = {key: value.to_decimal() if isinstance(value, Decimal128) else value for key, value in values.items()}
    return LimitRule(**{**values, "limited": Limited(values["limited"])})
