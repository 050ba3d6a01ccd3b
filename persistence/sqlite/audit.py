"""The embedded audit log: a table of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import orjson

from ..audit_records import AuditEvent, AuditFilter, first_id
from .database import Database
from .times import EPOCH, MILLISECOND, milliseconds

_COLUMN_OF = {"before": "before_", "after": "after_"}
_NAMES = tuple(_COLUMN_OF.get(field.name, field.name) for field in fields(AuditEvent))
_COLUMNS = ", ".join(_NAMES)
_EQUAL = ("action", "subject_id", "actor")

# Built of the texts in this file: values are bound.
_ADD = f"INSERT INTO audit_events ({_COLUMNS}) VALUES ({', '.join(f':{name}' for name in _NAMES)})"  # noqa: S608
_PAGE = f"SELECT {_COLUMNS} FROM audit_events WHERE {{conditions}} ORDER BY id DESC LIMIT :limit"  # noqa: S608


class SQLiteAuditLog:
    """`persistence.ports.AuditStore` in one table. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, event: AuditEvent) -> None:
        await self._database.write(lambda connection: add_event(connection, event))

    async def page(
        self, organisation: str, *, where: AuditFilter, limit: int, before: str | None = None
    ) -> Sequence[AuditEvent]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: dict[str, str | int | None] = {"organisation": organisation, "limit": limit}
        conditions = " AND ".join(["organisation = :organisation", *_conditions(where, before, asked)])
        return [_event(row) for row in await self._database.report(_PAGE.format(conditions=conditions), asked)]


def add_event(connection: sqlite3.Connection, event: AuditEvent) -> None:
    """Beside the write that it tells of, in its transaction."""
    row: dict[str, Any] = {field.name: getattr(event, field.name) for field in fields(event)}
    if event.at.microsecond % 1000:
        raise ValueError("an event's time must be whole milliseconds")
    row.update(at=milliseconds(event.at), before_=_json(row.pop("before")), after_=_json(row.pop("after")))
    connection.execute(_ADD, row)


def _conditions(where: AuditFilter, before: str | None, asked: dict[str, str | int | None]) -> Iterator[str]:
    for name in _EQUAL:
        if (value := getattr(where, name)) is not None:
            asked[name] = value
            yield f"{name} = :{name}"
    if before is not None:
        asked["before"] = before
        yield "id < :before"
    if where.since is not None:
        asked["since"] = first_id(where.since)
        yield "id >= :since"
    if where.until is not None:
        asked["until"] = first_id(where.until)
        yield "id < :until"


def _json(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else orjson.dumps(values).decode()


def _event(row: Sequence[Any]) -> AuditEvent:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    for name, column in _COLUMN_OF.items():
        text = values.pop(column)
        values[name] = None if text is None else orjson.loads(text)
    values["at"] = EPOCH + values["at"] * MILLISECOND
    return AuditEvent(**values)
