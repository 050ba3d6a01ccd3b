"""Connections to the PostgreSQL that holds the ledger: bounded in number and in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]
import orjson
from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ..ports import StoreUnavailableError
from .address import dsn

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 1.0
STATEMENT_TIMEOUT_S = 15.0
GRACE_S = 2.0  # for the server to break a statement off by itself, before its connection is given up

_REFUSED = ("22", "23", "54")
"""Classes of SQLSTATE that are the value's fault: https://www.postgresql.org/docs/current/errcodes-appendix.html"""


_ERRORS = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

T = TypeVar("T")


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
        return await self._repeated(lambda connection: rows_of(connection, statement, values))

    async def snapshot(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What `work` reads, by `rows_of`: its statements see the same moment. Repeated as `run` is."""

        async def of_one_moment(connection: AsyncConnection) -> T:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            return await work(connection)

        return await self._repeated(of_one_moment)

    async def _repeated(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s + GRACE_S):
                try:
                    return await self._connected(work)
                except (DBAPIError, OSError) as error:
                    if not _is_lost(error):
                        raise
                    return await self._connected(work)
        except _ERRORS as error:
            raise _told_apart(error) from None  # the chain would show addresses and rows

    async def _connected(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._engine.connect() as connection:
            try:
                return await work(connection)
            except (TimeoutError, asyncio.CancelledError):
                await connection.invalidate()  # nobody knows what it is at
                raise

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection]:
        """A connection that keeps what belongs to its session, each statement a transaction: for upkeep. It is closed
        when the work on it fails, and with it the locks that it holds."""
        try:
            async with self._engine.connect() as connection:
                try:
                    yield connection
                except BaseException:  # cancelled as well: nobody knows what it is at
                    await connection.invalidate()
                    raise
        except _ERRORS as error:
            raise _told_apart(error) from None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction, for migrations."""
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(isolation_level="READ COMMITTED")
                async with connection.begin():
                    yield connection
        except _ERRORS as error:
            raise _told_apart(error) from None


async def rows_of(
    connection: AsyncConnection, statement: TextClause, values: Mapping[str, object] | None = None
) -> Sequence[Any]:
    result = await connection.execute(statement, dict(values or {}))
    return result.all() if result.returns_rows else ()


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
        with suppress(TimeoutError):  # a server that doesn't hear of it finds out
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
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
