"""The embedded API keys: two tables of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

import orjson

from ..key_records import FORGOTTEN_AFTER, ApiKey, ApiKeyFilter, Grant, PresentedKey
from ..ports import Audit, Conflict, StoreConflictError
from .audit import add_event
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

_NAMES = tuple("grant_" if field.name == "grant" else field.name for field in fields(ApiKey))
_COLUMNS = ", ".join(f"k.{name}" for name in _NAMES)
_TIMES = ("created_at", "updated_at", "expires_at", "revoked_at", "last_used_at")
_THE_KEY = "k.organisation = :organisation AND k.id = :id"
_OPENS = "k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > :now)"

# Built of the texts in this file: values are bound.
_CREATE = f"""
    INSERT INTO api_keys ({", ".join(_NAMES)}) SELECT {", ".join(f":{name}" for name in _NAMES)}
    WHERE :at_most > (SELECT count(*) FROM api_keys AS k WHERE k.organisation = :organisation AND {_OPENS})
"""  # noqa: S608
_BY_DIGEST = f"""
    SELECT d.ends_at, {_COLUMNS} FROM api_key_digests AS d
    JOIN api_keys AS k ON k.organisation = d.organisation AND k.id = d.key_id WHERE d.digest = :digest
"""  # noqa: S608
_BY_ID = f"SELECT {_COLUMNS} FROM api_keys AS k WHERE {_THE_KEY}"  # noqa: S608
_PAGE = f"""
    SELECT {_COLUMNS} FROM api_keys AS k
    WHERE k.organisation = :organisation AND (:before IS NULL OR k.id < :before) AND (:now IS NULL OR ({_OPENS}))
    ORDER BY k.id DESC LIMIT :limit
"""  # noqa: S608
_CHANGE = f"""
    UPDATE api_keys AS k SET {{changes}}, updated_at = :at, revision = revision + 1
    WHERE {_THE_KEY} AND k.revoked_at IS NULL AND (:expected IS NULL OR k.revision = :expected)
"""  # noqa: S608
_ADD_DIGEST = "INSERT INTO api_key_digests VALUES (:digest, :organisation, :id, NULL)"
_END_DIGESTS = """
    UPDATE api_key_digests SET ends_at = min(:until, ifnull(ends_at, :until))
    WHERE organisation = :organisation AND key_id = :id
"""
_FORGET_DIGESTS = "DELETE FROM api_key_digests WHERE ends_at < :forgotten"
_USED = "UPDATE api_keys AS k SET last_used_at = max(:at, ifnull(last_used_at, :at)) WHERE " + _THE_KEY  # noqa: S608


class SQLiteApiKeys:
    """`persistence.ports.ApiKeyStore` in two tables. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, key: ApiKey, digest: str, *, at_most: int, audit: Audit[ApiKey]) -> None:
        row = {**_row(key), "now": _stamp(key.created_at), "at_most": at_most, "digest": digest}

        def create(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                if not connection.execute(_CREATE, row).rowcount:
                    raise StoreConflictError(f"there are {at_most} API keys", on=Conflict.FULL)
                connection.execute(_ADD_DIGEST, row)
                add_event(connection, audit(None, key))

        await self._database.write(create)

    async def by_digest(self, digest: str) -> PresentedKey | None:
        rows = await self._database.look_up(_BY_DIGEST, {"digest": digest})
        return PresentedKey(_key(rows[0][1:]), _time(rows[0][0])) if rows else None

    async def by_id(self, organisation: str, key_id: str) -> ApiKey | None:
        rows = await self._database.look_up(_BY_ID, {"organisation": organisation, "id": key_id})
        return _key(rows[0]) if rows else None

    async def page(
        self, organisation: str, *, where: ApiKeyFilter, limit: int, before: str | None = None
    ) -> Sequence[ApiKey]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        now = None if where.opens_at is None else _floor(where.opens_at)
        asked: Parameters = {"organisation": organisation, "limit": limit, "before": before, "now": now}
        return [_key(row) for row in await self._database.report(_PAGE, asked)]

    async def save(self, key: ApiKey, *, expected_revision: int, audit: Audit[ApiKey]) -> ApiKey | None:
        row = {**_row(key), "expected": expected_revision}
        changes = "name = :name, grant_ = :grant_, expires_at = :expires_at"
        return await self._change(key.organisation, key.id, changes, key.updated_at, row, audit)

    async def rotate(
        self,
        organisation: str,
        key_id: str,
        digest: str,
        *,
        hint: str,
        until: datetime,
        at: datetime,
        audit: Audit[ApiKey],
    ) -> ApiKey | None:
        forgotten = _stamp(at) - FORGOTTEN_AFTER // MILLISECOND
        values: Parameters = {"digest": digest, "hint": hint, "until": _stamp(until), "forgotten": forgotten}

        def digests(connection: sqlite3.Connection, asked: Parameters) -> None:
            for statement in (_END_DIGESTS, _ADD_DIGEST, _FORGET_DIGESTS):
                connection.execute(statement, asked)

        return await self._change(organisation, key_id, "hint = :hint", at, values, audit, and_then=digests)

    async def revoke(
        self, organisation: str, key_id: str, *, at: datetime, by: str, audit: Audit[ApiKey]
    ) -> ApiKey | None:
        changes = "revoked_at = :at, revoked_by = :by"
        try:
            return await self._change(organisation, key_id, changes, at, {"by": by}, audit)
        except StoreConflictError:
            return await self.by_id(organisation, key_id)

    async def note_uses(self, uses: Mapping[tuple[str, str], datetime]) -> None:
        rows = [{"organisation": name[0], "id": name[1], "at": _stamp(at)} for name, at in uses.items()]

        def note(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany(_USED, rows)

        await self._database.write(note)

    async def _change(
        self,
        organisation: str,
        key_id: str,
        changes: str,
        at: datetime,
        values: Mapping[str, str | int | None],
        audit: Audit[ApiKey],
        *,
        and_then: Callable[[sqlite3.Connection, Parameters], None] | None = None,
    ) -> ApiKey | None:
        values = {"expected": None, **values}
        asked: Parameters = {**values, "organisation": organisation, "id": key_id, "at": _stamp(at)}

        def change(connection: sqlite3.Connection) -> ApiKey | None:
            with transaction(connection):
                standing = _standing(connection, asked)
                if standing is None:
                    return None
                if not connection.execute(_CHANGE.format(changes=changes), asked).rowcount:
                    raise _refused(standing)
                if and_then is not None:
                    and_then(connection, asked)
                changed = _standing(connection, asked)
                add_event(connection, audit(standing, changed))
                return changed

        return await self._database.write(change)


def _standing(connection: sqlite3.Connection, asked: Parameters) -> ApiKey | None:
    rows = connection.execute(_BY_ID, asked).fetchall()
    return _key(rows[0]) if rows else None


def _refused(key: ApiKey) -> StoreConflictError:
    if key.revoked_at is not None:
        return StoreConflictError("the key is revoked", on=Conflict.ENDED)
    return StoreConflictError(f"the key has revision {key.revision} by now", on=Conflict.REVISION)


def _row(key: ApiKey) -> dict[str, str | int | None]:
    row: dict[str, Any] = {field.name: getattr(key, field.name) for field in fields(key)}
    for name in _TIMES:
        row[name] = None if row[name] is None else _stamp(row[name])
    row["grant_"] = orjson.dumps(asdict(row.pop("grant"))).decode()
    return row


def _key(row: Sequence[Any]) -> ApiKey:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    for name in _TIMES:
        values[name] = _time(values[name])
    listed = orjson.loads(values.pop("grant_"))
    grant: dict[str, Any] = {name: None if each is None else tuple(each) for name, each in listed.items()}
    return ApiKey(**values, grant=Grant(**grant))


def _time(stamp: int | None) -> datetime | None:
    return None if stamp is None else EPOCH + stamp * MILLISECOND


def _floor(time: datetime) -> int:
    return (time - EPOCH) // MILLISECOND


def _stamp(time: datetime) -> int:
    if time.microsecond % 1000:
        raise ValueError("an API key's times must be whole milliseconds")
    return milliseconds(time)
