"""The embedded limits: a table of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields
from decimal import Decimal
from typing import Any

import orjson

from ..limit_records import Limited, LimitRule
from ..ports import Audit
from .audit import add_event
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

_NAMES = tuple(field.name for field in fields(LimitRule))
_COLUMNS = ", ".join(_NAMES)
_KEY = ("organisation", "limited", "name")
_MONEY = ("usd_per_day", "usd_per_month")

# Built of the texts in this file: values are bound.
_PUT = f"""
    INSERT INTO limits ({_COLUMNS}) VALUES ({", ".join(f":{name}" for name in _NAMES)})
    ON CONFLICT DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _NAMES if name not in _KEY)}
"""  # noqa: S608
_OF = f"SELECT {_COLUMNS} FROM limits WHERE organisation = :organisation ORDER BY limited, name"  # noqa: S608
_THE_RULE = "organisation = :organisation AND limited = :limited AND name = :name"
_ONE = f"SELECT {_COLUMNS} FROM limits WHERE {_THE_RULE}"  # noqa: S608
_DELETE = f"DELETE FROM limits WHERE {_THE_RULE}"  # noqa: S608


class SQLiteLimits:
    """`persistence.ports.LimitStore` in one table. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, rule: LimitRule, *, audit: Audit[LimitRule]) -> None:
        if rule.updated_at.microsecond % 1000:
            raise ValueError("a rule's time must be whole milliseconds")
        row = {**asdict(rule), "limited": rule.limited.value, "updated_at": milliseconds(rule.updated_at)}
        row |= {name: None if row[name] is None else str(row[name]) for name in _MONEY}
        row["alert_at"] = None if rule.alert_at is None else orjson.dumps(rule.alert_at).decode()

        def put(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                standing = _standing(connection, row)
                connection.execute(_PUT, row)
                add_event(connection, audit(standing, rule))

        await self._database.write(put)

    async def of(self, organisation: str) -> Sequence[LimitRule]:
        return [_rule(row) for row in await self._database.look_up(_OF, {"organisation": organisation})]

    async def delete(self, organisation: str, limited: Limited, name: str, *, audit: Audit[LimitRule]) -> bool:
        asked: Parameters = {"organisation": organisation, "limited": limited.value, "name": name}

        def delete(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                standing = _standing(connection, asked)
                if standing is not None:
                    connection.execute(_DELETE, asked)
                    add_event(connection, audit(standing, None))
                return standing is not None

        return await self._database.write(delete)


def _standing(connection: sqlite3.Connection, asked: Parameters) -> LimitRule | None:
    row = connection.execute(_ONE, asked).fetchone()
    return None if row is None else _rule(row)


def _rule(row: Sequence[Any]) -> LimitRule:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    values |= {name: None if values[name] is None else Decimal(values[name]) for name in _MONEY}
    values["alert_at"] = None if values["alert_at"] is None else tuple(orjson.loads(values["alert_at"]))
    values["limited"] = Limited(values["limited"])
    values["updated_at"] = EPOCH + values["updated_at"] * MILLISECOND
    return LimitRule(**values)
