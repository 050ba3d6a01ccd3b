"""The embedded list of registered documents: a table of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..trusted_records import TrustedDocument
from .database import Database, transaction
from .times import EPOCH, MILLISECOND, milliseconds

_ADD = "INSERT INTO trusted_documents (sha256, text, name, registered_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_TEXT = "SELECT text FROM trusted_documents WHERE sha256 = :sha256"
_REMOVE = "DELETE FROM trusted_documents WHERE sha256 = ?"
_PAGE = """
    SELECT sha256, text, name, registered_at FROM trusted_documents
    WHERE sha256 > :after ORDER BY sha256 LIMIT :limit
"""


class SQLiteTrustedDocuments:
    """`persistence.ports.TrustedDocumentStore` in one table. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, documents: Sequence[TrustedDocument]) -> int:
        rows = [(each.sha256, each.text, each.name, _whole_milliseconds(each)) for each in documents]

        def add(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                return sum(connection.execute(_ADD, row).rowcount for row in rows)

        return await self._database.write(add)

    async def text(self, sha256: str) -> str | None:
        rows = await self._database.look_up(_TEXT, {"sha256": sha256})
        return rows[0][0] if rows else None

    async def remove(self, sha256: str) -> bool:
        return await self._database.write(lambda connection: connection.execute(_REMOVE, (sha256,)).rowcount > 0)

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[TrustedDocument]:
        if limit < 1:
            raise ValueError("limit must be at least 1")
        rows = await self._database.report(_PAGE, {"after": after or "", "limit": limit})
        return [TrustedDocument(sha256, text, name, EPOCH + at * MILLISECOND) for sha256, text, name, at in rows]


def _whole_milliseconds(document: TrustedDocument) -> int:
    if document.registered_at.microsecond % 1000:
        raise ValueError("a document's time must be whole milliseconds")
    return milliseconds(document.registered_at)
