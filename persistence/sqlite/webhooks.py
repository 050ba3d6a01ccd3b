"""The embedded webhooks: a table of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any

import orjson

from ..ports import Audit, Conflict, StoreConflictError
from ..webhook_records import Webhook
from .audit import add_event
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

_NAMES = tuple(field.name for field in fields(Webhook))
_COLUMNS = ", ".join(_NAMES)
_TIMES = ("former_until", "created_at", "updated_at")
_KEY = ("organisation", "id")
_THE_WEBHOOK = "organisation = :organisation AND id = :id"

# Built of the texts in this file: values are bound.
_CREATE = f"""
    INSERT INTO webhooks ({_COLUMNS}) SELECT {", ".join(f":{name}" for name in _NAMES)}
    WHERE :at_most > (SELECT count(*) FROM webhooks WHERE organisation = :organisation)
"""  # noqa: S608
_OF = f"SELECT {_COLUMNS} FROM webhooks WHERE organisation = :organisation ORDER BY id"  # noqa: S608
_ONE = f"SELECT {_COLUMNS} FROM webhooks WHERE {_THE_WEBHOOK}"  # noqa: S608
_SAVE = f"""
    UPDATE webhooks SET {", ".join(f"{name} = :{name}" for name in _NAMES if name not in _KEY)} WHERE {_THE_WEBHOOK}
"""  # noqa: S608
_DELETE = f"DELETE FROM webhooks WHERE {_THE_WEBHOOK}"  # noqa: S608
_EVERY = f"""
    SELECT {_COLUMNS} FROM webhooks WHERE (organisation, id) > (:organisation, :id) ORDER BY organisation, id
    LIMIT :limit
"""  # noqa: S608
_RESEAL = f"""
    UPDATE webhooks SET sealed = :fresh, former = :fresh_former
    WHERE {_THE_WEBHOOK} AND sealed = :sealed AND former IS :former
"""  # noqa: S608


class SQLiteWebhooks:
    """`persistence.ports.WebhookStore` in one table. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, webhook: Webhook, *, at_most: int, audit: Audit[Webhook]) -> None:
        row = {**_row(webhook), "at_most": at_most}

        def create(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                if not connection.execute(_CREATE, row).rowcount:
                    raise StoreConflictError(f"there are {at_most} webhooks", on=Conflict.FULL)
                add_event(connection, audit(None, webhook))

        await self._database.write(create)

    async def of(self, organisation: str) -> Sequence[Webhook]:
        return [_webhook(row) for row in await self._database.look_up(_OF, {"organisation": organisation})]

    async def by_id(self, organisation: str, webhook_id: str) -> Webhook | None:
        rows = await self._database.look_up(_ONE, {"organisation": organisation, "id": webhook_id})
        return _webhook(rows[0]) if rows else None

    async def save(self, webhook: Webhook, *, expected_revision: int, audit: Audit[Webhook]) -> Webhook | None:
        saved = replace(webhook, revision=expected_revision + 1)
        row = _row(saved)

        def save(connection: sqlite3.Connection) -> Webhook | None:
            with transaction(connection):
                standing = _standing(connection, row)
                if standing is None:
                    return None
                if standing.revision != expected_revision:
                    text = f"the webhook has revision {standing.revision} by now"
                    raise StoreConflictError(text, on=Conflict.REVISION)
                connection.execute(_SAVE, row)
                add_event(connection, audit(standing, saved))
                return saved

        return await self._database.write(save)

    async def delete(self, organisation: str, webhook_id: str, *, audit: Audit[Webhook]) -> bool:
        asked: Parameters = {"organisation": organisation, "id": webhook_id}

        def delete(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                standing = _standing(connection, asked)
                if standing is not None:
                    connection.execute(_DELETE, asked)
                    add_event(connection, audit(standing, None))
                return standing is not None

        return await self._database.write(delete)

    async def every(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[Webhook]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        organisation, webhook_id = after or ("", "")
        asked: Parameters = {"organisation": organisation, "id": webhook_id, "limit": limit}
        return [_webhook(row) for row in await self._database.report(_EVERY, asked)]

    async def reseal(self, webhook: Webhook, sealed: str, former: str | None) -> bool:
        asked: Parameters = {**_row(webhook), "fresh": sealed, "fresh_former": former}
        return bool(await self._database.write(lambda connection: connection.execute(_RESEAL, asked).rowcount))


def _standing(connection: sqlite3.Connection, asked: Parameters) -> Webhook | None:
    row = connection.execute(_ONE, asked).fetchone()
    return None if row is None else _webhook(row)


def _row(webhook: Webhook) -> dict[str, str | int | None]:
    row: dict[str, Any] = {name: getattr(webhook, name) for name in _NAMES}
    for name in _TIMES:
        row[name] = None if row[name] is None else _stamp(row[name])
    row["events"] = orjson.dumps(row["events"]).decode()
    row["enabled"] = int(row["enabled"])
    return row


def _webhook(row: Sequence[Any]) -> Webhook:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    for name in _TIMES:
        values[name] = None if values[name] is None else EPOCH + values[name] * MILLISECOND
    values["events"] = tuple(orjson.loads(values["events"]))
    values["enabled"] = bool(values["enabled"])
    return Webhook(**values)


def _stamp(time: datetime) -> int:
    if time.microsecond % 1000:
        raise ValueError("a webhook's times must be whole milliseconds")
    return milliseconds(time)
