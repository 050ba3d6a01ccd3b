"""The embedded provider keys: a table of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from ..ports import Audit
from ..provider_key_records import StoredProviderKey
from .audit import add_event
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

_NAMES = tuple(field.name for field in fields(StoredProviderKey))
_COLUMNS = ", ".join(_NAMES)
_THE_KEY = "organisation = :organisation AND provider = :provider"

# Built of the texts in this file: values are bound.
_PUT = f"""
    INSERT INTO provider_keys ({_COLUMNS}) VALUES ({", ".join(f":{name}" for name in _NAMES)})
    ON CONFLICT DO UPDATE SET
        sealed = excluded.sealed, hint = excluded.hint, created_at = excluded.created_at,
        created_by = excluded.created_by
"""  # noqa: S608
_OF = f"SELECT {_COLUMNS} FROM provider_keys WHERE organisation = :organisation ORDER BY provider"  # noqa: S608
_ONE = f"SELECT {_COLUMNS} FROM provider_keys WHERE {_THE_KEY}"  # noqa: S608
_DELETE = f"DELETE FROM provider_keys WHERE {_THE_KEY}"  # noqa: S608
_EVERY = f"""
    SELECT {_COLUMNS} FROM provider_keys WHERE (organisation, provider) > (:organisation, :provider)
    ORDER BY organisation, provider LIMIT :limit
"""  # noqa: S608
_RESEAL = f"UPDATE provider_keys SET sealed = :fresh WHERE {_THE_KEY} AND sealed = :sealed"  # noqa: S608


class SQLiteProviderKeys:
    """`persistence.ports.ProviderKeyStore` in one table. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, key: StoredProviderKey, *, audit: Audit[StoredProviderKey]) -> None:
        row = {**asdict(key), "created_at": _stamp(key.created_at)}

        def put(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                standing = _standing(connection, row)
                connection.execute(_PUT, row)
                add_event(connection, audit(standing, key))

        await self._database.write(put)

    async def of(self, organisation: str) -> Sequence[StoredProviderKey]:
        return [_key(row) for row in await self._database.look_up(_OF, {"organisation": organisation})]

    async def delete(self, organisation: str, provider: str, *, audit: Audit[StoredProviderKey]) -> bool:
        asked: Parameters = {"organisation": organisation, "provider": provider}

        def delete(connection: sqlite3.Connection) -> bool:
            with transaction(connection):
                standing = _standing(connection, asked)
                if standing is not None:
                    connection.execute(_DELETE, asked)
                    add_event(connection, audit(standing, None))
                return standing is not None

        return await self._database.write(delete)

    async def every(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[StoredProviderKey]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        organisation, provider = after or ("", "")
        asked: Parameters = {"organisation": organisation, "provider": provider, "limit": limit}
        return [_key(row) for row in await self._database.report(_EVERY, asked)]

    async def reseal(self, key: StoredProviderKey, sealed: str) -> bool:
        asked: Parameters = {
            "organisation": key.organisation,
            "provider": key.provider,
            "sealed": key.sealed,
            "fresh": sealed,
        }
        return bool(await self._database.write(lambda connection: connection.execute(_RESEAL, asked).rowcount))


def _standing(connection: sqlite3.Connection, asked: Parameters) -> StoredProviderKey | None:
    rows = connection.execute(_ONE, asked).fetchall()
    return _key(rows[0]) if rows else None


def _key(row: Sequence[Any]) -> StoredProviderKey:
    values: dict[str, Any] = dict(zip(_NAMES, row, strict=True))
    values["created_at"] = EPOCH + values["created_at"] * MILLISECOND
    return StoredProviderKey(**values)


def _stamp(time: datetime) -> int:
    if time.microsecond % 1000:
        raise ValueError("a provider key's time must be whole milliseconds")
    return milliseconds(time)
