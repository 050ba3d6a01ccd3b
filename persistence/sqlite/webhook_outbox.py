"""The embedded outbox of webhooks: two tables of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import orjson

from ..webhook_records import DeliveryState, WebhookDelivery, WebhookEvent
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

FORGOTTEN_AT_ONCE = 1_000

_NAMES = tuple(field.name for field in fields(WebhookDelivery))
_COLUMNS = ", ".join(_NAMES)
_TIMES = ("due_at", "attempted_at", "created_at")
_OUTCOME = ("state", "due_at", "attempts_at_most", "status", "reason", "attempted_at")
_THE_DELIVERY = "organisation = :organisation AND id = :id"

# Built of the texts in this file: values are bound.
_ADD_EVENT = "INSERT INTO webhook_events (organisation, id, type, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ADD = f"INSERT INTO webhook_deliveries ({_COLUMNS}) VALUES ({', '.join(f':{name}' for name in _NAMES)})"  # noqa: S608
_CLAIM = f"""
    UPDATE webhook_deliveries SET due_at = :until, attempts = attempts + 1
    WHERE rowid = (
        SELECT rowid FROM webhook_deliveries
        WHERE due_at <= :now
            AND organisation NOT IN (SELECT value FROM json_each(:busy))
            AND webhook_id NOT IN (SELECT value FROM json_each(:resting))
        ORDER BY due_at, id LIMIT 1
    )
    RETURNING {_COLUMNS}
"""  # noqa: S608
_CHANGE = f"""
    UPDATE webhook_deliveries SET {", ".join(f"{name} = :{name}" for name in _OUTCOME)}
    WHERE {_THE_DELIVERY} AND attempts = :attempts AND state {{standing}}
"""  # noqa: S608
_ONE = f"SELECT {_COLUMNS} FROM webhook_deliveries WHERE {_THE_DELIVERY}"  # noqa: S608
_PAGE = f"""
    SELECT {_COLUMNS} FROM webhook_deliveries
    WHERE organisation = :organisation AND webhook_id = :webhook_id AND (:before IS NULL OR id < :before)
    ORDER BY id DESC LIMIT :limit
"""  # noqa: S608
_WAITING = """
    SELECT count(*) FROM (
        SELECT 1 FROM webhook_deliveries
        WHERE organisation = :organisation AND webhook_id = :webhook_id AND due_at IS NOT NULL LIMIT :at_most
    )
"""
_FORGET_DELIVERIES = """
    DELETE FROM webhook_deliveries WHERE rowid IN (
        SELECT rowid FROM webhook_deliveries WHERE created_at < ? AND due_at IS NULL LIMIT ?
    )
"""
_FORGET_EVENTS = """
    DELETE FROM webhook_events WHERE (organisation, id) IN (
        SELECT organisation, id FROM webhook_events WHERE at < ? LIMIT ?
    )
"""


class SQLiteWebhookOutbox:
    """`persistence.ports.WebhookOutbox` in two tables. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, event: WebhookEvent, deliveries: Sequence[WebhookDelivery]) -> bool:
        noted = event.organisation, event.id, event.type, _stamp(event.at)
        rows = [_row(each) for each in deliveries]

        def add(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                if not connection.execute(_ADD_EVENT, noted).rowcount:
                    return False
                connection.executemany(_ADD, rows)
                return True

        return await self._database.write(add)

    async def claim(
        self, *, now: datetime, until: datetime, busy: Collection[str], resting: Collection[str]
    ) -> WebhookDelivery | None:
        asked: Parameters = {
            "now": (now - EPOCH) // MILLISECOND,
            "until": milliseconds(until),
            "busy": orjson.dumps(list(busy)).decode(),
            "resting": orjson.dumps(list(resting)).decode(),
        }
        row = await self._database.write(lambda connection: connection.execute(_CLAIM, asked).fetchone())
        return None if row is None else _delivery(row)

    async def record(self, delivery: WebhookDelivery) -> bool:
        return await self._change(delivery, "= 'pending'")

    async def again(self, delivery: WebhookDelivery) -> bool:
        return await self._change(delivery, "<> 'pending'")

    async def by_id(self, organisation: str, delivery_id: str) -> WebhookDelivery | None:
        rows = await self._database.look_up(_ONE, {"organisation": organisation, "id": delivery_id})
        return _delivery(rows[0]) if rows else None

    async def page(
        self, organisation: str, webhook_id: str, *, limit: int, before: str | None = None
    ) -> Sequence[WebhookDelivery]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        asked: Parameters = {
            "organisation": organisation,
            "webhook_id": webhook_id,
            "limit": limit,
            "before": before,
        }
        return [_delivery(row) for row in await self._database.report(_PAGE, asked)]

    async def waiting(self, organisation: str, webhook_id: str, *, at_most: int) -> int:
        asked: Parameters = {"organisation": organisation, "webhook_id": webhook_id, "at_most": at_most}
        return int((await self._database.look_up(_WAITING, asked))[0][0])

    async def forget(self, *, deliveries_before: datetime, events_before: datetime) -> int:
        def forget(connection: sqlite3.Connection) -> int:
            return sum(
                connection.execute(statement, (milliseconds(before), FORGOTTEN_AT_ONCE)).rowcount
                for statement, before in ((_FORGET_DELIVERIES, deliveries_before), (_FORGET_EVENTS, events_before))
            )

        return await self._database.write(forget)

    async def _change(self, delivery: WebhookDelivery, standing: str) -> bool:
        statement, row = _CHANGE.format(standing=standing), _row(delivery)
        return bool(await self._database.write(lambda connection: connection.execute(statement, row).rowcount))


def _row(delivery: WebhookDelivery) -> dict[str, str | int | None]:
    row: dict[str, Any] = {name: getattr(delivery, name) for name in _NAMES}
    for name in _TIMES:
        row[name] = None if row[name] is None else _stamp(row[name])
    row["state"] = delivery.state.value
    return row


def _delivery(row: Sequence[Any]) -> WebhookDelivery:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    for name in _TIMES:
        values[name] = None if values[name] is None else EPOCH + values[name] * MILLISECOND
    values["state"] = DeliveryState(values["state"])
    return WebhookDelivery(**values)


def _stamp(time: datetime) -> int:
    if time.microsecond % 1000:
        raise ValueError("a delivery's times must be whole milliseconds")
    return milliseconds(time)
