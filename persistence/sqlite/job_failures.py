"""Failures of jobs that are queued elsewhere: a table of the one SQLite file."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from ..queue_records import FAILURES_KEPT_FOR
from .database import Database, transaction
from .times import milliseconds

_FORGET = "DELETE FROM job_failures WHERE failed_at < ?"
_ADD = """
    INSERT INTO job_failures (name, failures, failed_at) VALUES (?, ? + 1, ?)
    ON CONFLICT (name) DO UPDATE SET
        failures = max(failures + 1, excluded.failures), failed_at = max(failed_at, excluded.failed_at)
    RETURNING failures
"""


class SQLiteJobFailures:
    """`persistence.ports.JobFailures` in one table. Raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, name: str, *, known: int, at: datetime) -> int:
        now, before = milliseconds(at), milliseconds(at - FAILURES_KEPT_FOR)

        def add(connection: sqlite3.Connection) -> int:
            with transaction(connection):
                connection.execute(_FORGET, (before,))
                ((failures,),) = connection.execute(_ADD, (name, known, now)).fetchall()
                return int(failures)

        return await self._database.write(add)
