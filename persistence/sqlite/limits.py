"""The embedded limits: a table of the one SQLite file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from decimal import Decimal
from typing import Any

from ..limit_records import Limited, LimitRule
from .database import Database, Parameters
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
_DELETE = "DELETE FROM limits WHERE organisation = :organisation AND limited = :limited AND name = :name"


class SQLiteLimits:
    """`persistence.ports.LimitStore` in one table. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, rule: LimitRule) -> None:
        if rule.updated_at.microsecond % 1000:
            raise ValueError("a rule's time must be whole milliseconds")
        row = {**asdict(rule), "limited": rule.limited.value, "updated_at": milliseconds(rule.updated_at)}
        row |= {name: None if row[name] is None else str(row[name]) for name in _MONEY}
        await self._database.write(lambda connection: connection.execute(_PUT, row).rowcount)

    async def of(self, organisation: str) -> Sequence[LimitRule]:
        return [_rule(row) for row in await self._database.look_up(_OF, {"organisation": organisation})]

    async def delete(self, organisation: str, limited: Limited, name: str) -> bool:
        asked: Parameters = {"organisation": organisation, "limited": limited.value, "name": name}
        return bool(await self._database.write(lambda connection: connection.execute(_DELETE, asked).rowcount))


def _rule(row: Sequence[Any]) -> LimitRule:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    values |= {name: None if values[name] is None else Decimal(values[name]) for name in _MONEY}
    values["limited"] = Limited(values["limited"])
    values["updated_at"] = EPOCH + values["updated_at"] * MILLISECOND
    return LimitRule(**values)
