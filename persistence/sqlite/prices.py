"""The embedded price rules: a table of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..ports import Audit, Conflict, StoreConflictError
from ..price_records import Discount, Override, PriceFilter, PriceRule
from .audit import add_event
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

_PRICES = tuple(field.name for field in fields(Override))
_OTHERS = ("id", "organisation", "provider", "model", "since", "until", "note", "created_at", "created_by")
_NAMES = (*_OTHERS, *_PRICES, "percent")
_COLUMNS = ", ".join(_NAMES)
_THE_RULE = "organisation = :organisation AND id = :id"
_UNENDED = "(until IS NULL OR until > :now)"

# Built of the texts in this file: values are bound.
_ADD = f"""
    INSERT INTO price_rules ({_COLUMNS}) SELECT {", ".join(f":{name}" for name in _NAMES)}
    WHERE :at_most > (SELECT count(*) FROM price_rules WHERE organisation = :organisation AND {_UNENDED})
"""  # noqa: S608
_BY_ID = f"SELECT {_COLUMNS} FROM price_rules WHERE {_THE_RULE}"  # noqa: S608
_END = f"UPDATE price_rules SET until = :until WHERE {_THE_RULE} AND {_UNENDED} RETURNING {_COLUMNS}"  # noqa: S608
_UNENDED_RULES = f"""
    SELECT {_COLUMNS} FROM price_rules WHERE organisation = :organisation AND {_UNENDED} ORDER BY id
"""  # noqa: S608
_PAGE = f"SELECT {_COLUMNS} FROM price_rules WHERE {{conditions}} ORDER BY id DESC LIMIT :limit"  # noqa: S608


class SQLitePrices:
    """`persistence.ports.PriceStore` in one table. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, rule: PriceRule, *, at_most: int, audit: Audit[PriceRule]) -> None:
        row = {**_row(rule), "now": _stamp(rule.created_at), "at_most": at_most}

        def add(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                if not connection.execute(_ADD, row).rowcount:
                    raise StoreConflictError(f"there are {at_most} rules that have not ended", on=Conflict.FULL)
                add_event(connection, audit(None, rule))

        await self._database.write(add)

    async def by_id(self, organisation: str, rule_id: str) -> PriceRule | None:
        rows = await self._database.look_up(_BY_ID, {"organisation": organisation, "id": rule_id})
        return _rule(rows[0]) if rows else None

    async def end(
        self, organisation: str, rule_id: str, until: datetime, *, now: datetime, audit: Audit[PriceRule]
    ) -> PriceRule | None:
        asked: Parameters = {
            "organisation": organisation,
            "id": rule_id,
            "until": _stamp(until),
            "now": _stamp(now),
        }
        return await self._database.write(lambda connection: _ended(connection, asked, audit))

    async def unended(self, organisation: str, *, since: datetime) -> Sequence[PriceRule]:
        asked: Parameters = {"organisation": organisation, "now": _floor(since)}
        return [_rule(row) for row in await self._database.look_up(_UNENDED_RULES, asked)]

    async def page(
        self, organisation: str, *, where: PriceFilter, limit: int, before: str | None = None
    ) -> Sequence[PriceRule]:
        """Raises ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: dict[str, str | int | None] = {"organisation": organisation, "limit": limit}
        conditions = " AND ".join(["organisation = :organisation", *_conditions(where, before, asked)])
        return [_rule(row) for row in await self._database.report(_PAGE.format(conditions=conditions), asked)]


def _ended(connection: sqlite3.Connection, asked: Parameters, audit: Audit[PriceRule]) -> PriceRule | None:
    with transaction(connection):
        rows = connection.execute(_BY_ID, asked).fetchall()
        if not rows:
            return None
        standing = _rule(rows[0])
        if not (rows := connection.execute(_END, asked).fetchall()):
            assert standing.until is not None  # noqa: S101  # else it would just have been ended
            raise StoreConflictError(f"the rule ended at {standing.until.isoformat()}", on=Conflict.ENDED)
        ended = _rule(rows[0])
        add_event(connection, audit(standing, ended))
        return ended


def _conditions(where: PriceFilter, before: str | None, asked: dict[str, str | int | None]) -> Iterator[str]:
    if before is not None:
        asked["before"] = before
        yield "id < :before"
    if where.provider is not None:
        asked["provider"] = where.provider
        yield "provider = :provider"
    if where.model is not None:
        asked["model"] = where.model
        yield "model = :model"
    if where.active_at is not None:
        asked["at"] = _floor(where.active_at)
        yield "since <= :at AND (until IS NULL OR until > :at)"


def _row(rule: PriceRule) -> dict[str, str | int | None]:
    terms = rule.terms
    prices = astuple(terms) if isinstance(terms, Override) else (None,) * len(_PRICES)
    return {
        "id": rule.id,
        "organisation": rule.organisation,
        "provider": rule.provider,
        "model": rule.model,
        "since": _stamp(rule.since),
        "until": None if rule.until is None else _stamp(rule.until),
        "note": rule.note,
        "created_at": _stamp(rule.created_at),
        "created_by": rule.created_by,
        **{name: None if price is None else str(price) for name, price in zip(_PRICES, prices, strict=True)},
        "percent": str(terms.percent) if isinstance(terms, Discount) else None,
    }


def _rule(row: Sequence[Any]) -> PriceRule:
    values = dict(zip(_NAMES, row, strict=True))
    prices: dict[str, Any] = {name: _decimal(values.pop(name)) for name in _PRICES}
    percent = _decimal(values.pop("percent"))
    until = values["until"]
    values.update(
        terms=Override(**prices) if percent is None else Discount(percent),
        since=EPOCH + values["since"] * MILLISECOND,
        until=None if until is None else EPOCH + until * MILLISECOND,
        created_at=EPOCH + values["created_at"] * MILLISECOND,
    )
    return PriceRule(**values)


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _floor(time: datetime) -> int:
    """Rounded down: so `since <= time` and `time < until` hold for any microsecond, those two being whole."""
    return (time - EPOCH) // MILLISECOND


def _stamp(time: datetime) -> int:
    if time.microsecond % 1000:
        raise ValueError("a price rule's times must be whole milliseconds")
    return milliseconds(time)
