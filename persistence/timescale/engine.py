"""Connections to the PostgreSQL that holds the ledger: bounded in number and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import orjson
from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..ports import StoreUnavailableError
from .address import dsn

CONNECT_TIMEOUT_S = 5.0
STATEMENT_TIMEOUT_S = 15.0
GRACE_S = 2.0  # for the server to break a statement off by itself, before its connection is given up

_REFUSED = ("22", "23", "54")
"""Classes of SQLSTATE that are the value's fault: https://www.postgresql.org/docs/current/errcodes-appendix.html"""


class Engine:
    """A pool of connections; every statement is a transaction of its own. Opened by `open_engine`.

    Every method raises StoreUnavailableError, and ValueError for what the tables refuse. Neither holds a value of a
    row, nor the address.
    """

    def __init__(self, engine: AsyncEngine, *, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s

    async def run(self, statement: TextClause, values: Mapping[str, object] | None = None) -> Sequence[Any]:
        """The rows of one statement. Where the connection is lost it is sent once more on a new one: give only
        statements that may be repeated."""
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                try:
                    return await self._run(statement, values)
                except (DBAPIError, OSError) as error:
                    if not _is_lost(error):
                        raise
                    return await self._run(statement, values)
        except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _told_apart(error) from None  # the chain would show addresses and rows

    async def _run(self, statement: TextClause, values: Mapping[str, object] | None) -> Sequence[Any]:
        async with self._engine.connect() as connection:
            try:
                result = await connection.execute(statement, dict(values or {}))
                return result.all() if result.returns_rows else ()
            except (TimeoutError, asyncio.CancelledError):
                await connection.invalidate()  # nobody knows what it is at
                raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction, for migrations."""
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    yield connection
        except (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise _told_apart(error) from None


@asynccontextmanager
async def open_engine(
    url: str, *, pool_size: int = 1, statement_timeout_s: float | None = STATEMENT_TIMEOUT_S
) -> AsyncIterator[Engine]:
    """Connects when it is first used. `url`: see `address.dsn`, which raises ValueError. Without a
    `statement_timeout_s` statements take what they take."""
    timeout_s = statement_timeout_s or float("inf")
    address = dsn(url)

    async def connect(**_: object) -> Any:
        return await asyncpg.connect(
            address,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=None if statement_timeout_s is None else statement_timeout_s + GRACE_S / 2,
            server_settings={
                "application_name": "ai-middleware",
                "timezone": "UTC",
                "jit": "off",  # reports take milliseconds: compiling them took longer
                "statement_timeout": str(round((statement_timeout_s or 0) * 1000)),
                "synchronous_commit": "on",
            },
        )

    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S if statement_timeout_s is None else statement_timeout_s,
        isolation_level="AUTOCOMMIT",
        hide_parameters=True,
        json_deserializer=orjson.loads,
    )
    try:
        yield Engine(engine, timeout_s=timeout_s)
    finally:
        await engine.dispose()


def _is_lost(error: Exception) -> bool:
    return isinstance(error, ConnectionResetError) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _told_apart(error: Exception) -> Exception:
    cause: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        cause = error.orig.__cause__ or error.orig
    state = getattr(cause, "sqlstate", None) or ""
    if state[:2] in _REFUSED:
        return ValueError(f"the database can't hold this: {_text(cause)}")
    return StoreUnavailableError(f"PostgreSQL: {_text(cause)}")


def _text(error: BaseException) -> str:
    """Without the server's details: they quote rows. What the system says of a connection quotes addresses."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        return f"{error.sqlstate} {type(error).__name__}"
    return type(error).__name__
