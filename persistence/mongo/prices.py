"""Price rules on MongoDB: `price_rules`, and `price_books`, of which an organisation has one.

That one is written with each rule that is added: of two that add at once the later begins anew, and counts the other's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from bson.decimal128 import Decimal128
from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import ASCENDING, DESCENDING

from ..ports import Audit, Conflict, StoreConflictError
from ..price_records import Discount, Override, PriceFilter, PriceRule
from .audit import add_event
from .client import Database, Document, Mongo, Session
from .times import floor, stamp


class MongoPrices:
    """`persistence.ports.PriceStore` in two collections. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def add(self, rule: PriceRule, *, at_most: int, audit: Audit[PriceRule]) -> None:
        document = _document(rule)
        standing = {"_id.organisation": rule.organisation, **_unended(rule.created_at)}

        async def add(database: Database, session: Session) -> None:
            await database.price_books.update_one(
                {"_id": rule.organisation}, {"$inc": {"rules": 1}}, upsert=True, session=session
            )
            if await database.price_rules.count_documents(standing, limit=at_most, session=session) >= at_most:
                raise StoreConflictError(f"there are {at_most} rules that have not ended", on=Conflict.FULL)
            await database.price_rules.insert_one(document, session=session)
            await add_event(database, audit(None, rule), session)

        await self._mongo.transaction(add)

    async def by_id(self, organisation: str, rule_id: str) -> PriceRule | None:
        key = _key(organisation, rule_id)
        found = await self._mongo.look_up(lambda database: database.price_rules.find_one({"_id": key}))
        return None if found is None else _rule(found)

    async def end(
        self, organisation: str, rule_id: str, until: datetime, *, now: datetime, audit: Audit[PriceRule]
    ) -> PriceRule | None:
        asked = {"_id": _key(organisation, rule_id)}
        change = {"$set": {"until": stamp(until)}}

        async def end(database: Database, session: Session) -> PriceRule | None:
            found = await database.price_rules.find_one(asked, session=session)
            if found is None:
                return None
            standing = _rule(found)
            if standing.until is not None and standing.until <= now:
                raise StoreConflictError(f"the rule ended at {standing.until.isoformat()}", on=Conflict.ENDED)
            await database.price_rules.update_one(asked, change, session=session)
            ended = replace(standing, until=until)
            await add_event(database, audit(standing, ended), session)
            return ended

        return await self._mongo.transaction(end)

    async def unended(self, organisation: str, *, since: datetime) -> Sequence[PriceRule]:
        asked = {"_id.organisation": organisation, **_unended(since)}
        found = await self._mongo.look_up(
            lambda database: database.price_rules.find(asked).sort("_id", ASCENDING).to_list(None)
        )
        return [_rule(each) for each in found]

    async def page(
        self, organisation: str, *, where: PriceFilter, limit: int, before: str | None = None
    ) -> Sequence[PriceRule]:
        """Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("limit must be at least 1")
        start, end = _key(organisation, MinKey()), _key(organisation, MaxKey() if before is None else before)
        asked = {"$and": [{"_id": {"$gt": start, "$lt": end}}, *_conditions(where)]}
        found = await self._mongo.report(
            lambda database: database.price_rules.find(asked).sort("_id", DESCENDING).limit(limit).to_list(limit)
        )
        return [_rule(each) for each in found]


def _key(organisation: str, rule_id: str | MinKey | MaxKey) -> Document:
    return {"organisation": organisation, "id": rule_id}


def _unended(now: datetime) -> Document:
    return {"$or": [{"until": None}, {"until": {"$gt": floor(now)}}]}


def _conditions(where: PriceFilter) -> Iterator[Document]:
    if where.provider is not None:
        yield {"provider": where.provider}
    if where.model is not None:
        yield {"model": where.model}
    if where.active_at is not None:
        yield {"since": {"$lte": floor(where.active_at)}, **_unended(where.active_at)}


def _document(rule: PriceRule) -> Document:
    return {
        "_id": _key(rule.organisation, rule.id),
        "provider": rule.provider,
        "model": rule.model,
        "terms": _terms(rule.terms),
        "since": stamp(rule.since),
        "until": None if rule.until is None else stamp(rule.until),
        "note": rule.note,
        "created_at": stamp(rule.created_at),
        "created_by": rule.created_by,
    }


def _terms(terms: Override | Discount) -> Document:
    """The fields' own names, those that are None left out."""
    amounts = {field.name: getattr(terms, field.name) for field in fields(terms)}
    return {name: _exact(amount) for name, amount in amounts.items() if amount is not None}


def _exact(amount: Decimal) -> Decimal128:
    try:
        return Decimal128(amount)
    except ArithmeticError:
        raise ValueError("an amount has at most 34 digits") from None


def _rule(found: Document) -> PriceRule:
    values: dict[str, Any] = dict(found)
    key = values.pop("_id")
    amounts = {name: amount.to_decimal() for name, amount in values.pop("terms").items()}
    terms = Discount(**amounts) if "percent" in amounts else Override(**amounts)
    return PriceRule(id=key["id"], organisation=key["organisation"], terms=terms, **values)
