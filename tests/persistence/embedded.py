"""The embedded stores, each alone in a file of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from persistence.sqlite.database import BUSY_TIMEOUT_S, open_database
from persistence.sqlite.ledger import SQLiteLedger


@asynccontextmanager
async def open_sqlite_ledger(path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> AsyncIterator[SQLiteLedger]:
    async with open_database(path, busy_timeout_s=busy_timeout_s) as database:
        yield SQLiteLedger(database)
