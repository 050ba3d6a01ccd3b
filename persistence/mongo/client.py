"""Connections to MongoDB: bounded in number and in time. The one importer of motor."""

from __future__ import annotations

import asyncio
import random
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC
from pathlib import Path
from typing import Any, TypeVar, cast

import pymongo
from bson.errors import BSONError
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorClientSession, AsyncIOMotorDatabase
from pymongo.errors import (
    ConfigurationError,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from ..ports import StoreUnavailableError
from .address import check_address

DATABASE = "ai_middleware"
POOL_SIZE = 10
TIMEOUT_S = 15.0  # longer than an election takes
LOOK_UP_TIMEOUT_S = 3.0  # completions wait for look-ups
LOOK_TIMEOUT_S = 2.0  # a probe of the server's must not outlast its prober's patience
CONNECT_TIMEOUT_S = 5.0
AWAY_S = 1.0  # after a look-up that failed, for so long the next ones fail at once
GRACE_S = 1.0  # for the driver to give up by itself
WATCH_WAIT_S = 1.0
WATCH_TIMEOUT_S = 5.0

SCHEMA, SCHEMA_ID = "schema", "schema"
NEEDED = 10
"""The schema that this release needs: `persistence.migrations.mongo` makes it."""

_REFUSALS = {13, 18, 8000}  # Unauthorized, AuthenticationFailed, Atlas' own
_VALUES_FAULT = {2, 121, 10334, 17280}  # BadValue, DocumentValidationFailure, BSONObjectTooLarge, KeyTooLong
_TRANSIENT, _UNKNOWN = "TransientTransactionError", "UnknownTransactionCommitResult"
_TOLD = {
    "CERTIFICATE_VERIFY_FAILED": "the server's certificate is not of an authority that is trusted",
    "AuthenticationFailed": "18 AuthenticationFailed",
}
"""OpenSSL's and the server's names of what keeps the driver out: where it finds no server, its text alone has them."""
_BACKOFF_S = 0.005
_MAX_BACKOFF_S = 0.25

Document = dict[str, Any]
Database = AsyncIOMotorDatabase[Document]
Session = AsyncIOMotorClientSession
T = TypeVar("T")


class MongoRefusedError(StoreUnavailableError):
    """It was reached, and it is the settings that keep us from it. Waiting mends nothing."""


class HistoryLostError(StoreUnavailableError):
    """What was watched before can't be followed any more."""


class SchemaVersionError(StoreUnavailableError):
    """The database's schema is older or newer than this release needs. The text says what to do."""


class Mongo:
    """One database. Opened by `open_mongo`.

    Every method raises StoreUnavailableError (SchemaVersionError while the database has another schema than this
    release needs: then nothing is written), and ValueError for what can't be stored. Neither holds a value of a
    document, nor the address.
    """

    def __init__(self, client: AsyncIOMotorClient[Document], *, timeout_s: float) -> None:
        self._client = client
        self._database: Database = client.get_default_database(DATABASE)
        self._timeout_s = timeout_s
        self._checked = False
        self._away_until = 0.0
        self._writing: set[asyncio.Task[Any]] = set()

    async def look_up(self, ask: Callable[[Database], Awaitable[T]]) -> T:
        """What is found by an index. A moment after one that failed it fails at once: completions wait for it."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            raise StoreUnavailableError("MongoDB: did not answer a moment ago")
        try:
            return await self._run(lambda: ask(self._database), min(LOOK_UP_TIMEOUT_S, self._timeout_s))
        except StoreUnavailableError:
            self._away_until = loop.time() + AWAY_S
            raise

    async def report(self, ask: Callable[[Database], Awaitable[T]]) -> T:
        """What may take a while."""
        return await self._run(lambda: ask(self._database), self._timeout_s)

    async def write(self, order: Callable[[Database], Awaitable[T]]) -> T:
        """One statement. Once handed over it is carried out, whatever becomes of the caller; where the connection
        breaks or the primary changes, the driver sends it anew, and the server does it once."""
        return await self._carried_out(self._run(lambda: order(self._database), self._timeout_s))

    async def transaction(self, work: Callable[[Database, Session], Awaitable[T]]) -> T:
        """All that `work` does with the session, or nothing. Others that write the same documents make it begin anew.
        Like `write` it is carried out, whatever becomes of the caller."""
        return await self._carried_out(self._run(lambda: self._transaction(work), self._timeout_s))

    async def probe(self) -> None:
        """Raises StoreUnavailableError for what keeps it from its work, MongoRefusedError where the settings do."""
        await self._run(lambda: self._database.command("ping"), LOOK_TIMEOUT_S)

    async def look(self) -> str | None:
        """What keeps it from its work, in a line; None where nothing does."""
        try:
            await self.probe()
        except StoreUnavailableError as error:
            return str(error)
        return None

    async def administer(self, work: Callable[[Database], Awaitable[T]], *, timeout_s: float) -> T:
        """For migrations: without a look at the schema. Only for a server that answers it takes as long as it may."""
        await self._bounded(lambda: self._database.command("ping"), self._timeout_s)
        return await self._bounded(lambda: work(self._database), timeout_s)

    @asynccontextmanager
    async def watching(self, pipeline: Sequence[Document], *, after: Document | None) -> AsyncIterator[Watch]:
        """The change stream of the whole database, from `after` (a token of an earlier one) or from now on. Raises
        HistoryLostError where the server no longer has what came after."""
        watch = await self._run(lambda: self._watch(pipeline, after), self._timeout_s)
        try:
            yield watch
        finally:
            await watch.close()

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing)
        with pymongo.timeout(LOOK_TIMEOUT_S):  # it says goodbye to the server, and waits for that
            await asyncio.to_thread(self._client.close)

    async def _run(self, work: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        if not self._checked:
            await self._bounded(self._check, timeout_s)
            self._checked = True
        done = await self._bounded(work, timeout_s)
        self._away_until = 0.0
        return done

    async def _check(self) -> None:
        """Once for a process: a schema that is made newer while it runs still serves it."""
        hello = await self._database.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise MongoRefusedError("MongoDB: the server belongs to no replica set, so it has no transactions")
        check_schema(await schema_version(self._database))

    async def _watch(self, pipeline: Sequence[Document], after: Document | None) -> Watch:
        stream = self._database.watch(list(pipeline), resume_after=after, max_await_time_ms=round(WATCH_WAIT_S * 1000))
        try:
            return Watch(await stream.__aenter__(), self._bounded)
        except OperationFailure as error:
            if after is None:
                raise
            raise HistoryLostError(f"MongoDB: {_name(error)}") from None

    async def _transaction(self, work: Callable[[Database, Session], Awaitable[T]]) -> T:
        give_up = asyncio.get_running_loop().time() + self._timeout_s
        backoff_s = _BACKOFF_S
        async with await self._client.start_session() as session:
            while True:
                try:
                    return await self._attempt(session, work, give_up)
                except PyMongoError as error:
                    if not _may_repeat(error, _TRANSIENT, give_up):
                        raise
                await asyncio.sleep(random.uniform(0, backoff_s))  # noqa: S311  # jitter
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)

    async def _attempt(self, session: Session, work: Callable[[Database, Session], Awaitable[T]], give_up: float) -> T:
        session.start_transaction(
            read_concern=ReadConcern("snapshot"),
            write_concern=WriteConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )
        try:
            result = await work(self._database, session)
            while True:
                try:
                    await session.commit_transaction()
                except PyMongoError as error:
                    if not _may_repeat(error, _UNKNOWN, give_up):
                        raise
                else:
                    return result
        finally:
            if cast(
                "bool", session.in_transaction
            ):  # here: the session's own exit would wait for the server on the loop's thread
                await session.abort_transaction()

    async def _carried_out(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._written)
        return await asyncio.shield(task)

    def _written(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may have left

    async def _bounded(self, work: Callable[[], Awaitable[T]], timeout_s: float) -> T:
        """The driver works in threads, and may wait for one: both waits are bounded."""
        try:
            async with asyncio.timeout(timeout_s + GRACE_S):
                with pymongo.timeout(timeout_s):
                    return await work()
        except (PyMongoError, BSONError, OverflowError, TimeoutError) as error:
            raise _told_apart(error) from None  # the chain would show addresses and documents


class Watch:
    """A change stream, read by one task. See `Mongo.watching`."""

    def __init__(self, stream: Any, bounded: Callable[[Callable[[], Awaitable[Any]], float], Awaitable[Any]]) -> None:
        self._stream = stream
        self._bounded = bounded
        self._pending: asyncio.Future[Any] | None = None

    @property
    def token(self) -> Document | None:
        """Where it is."""
        token: Document | None = self._stream.resume_token
        return token

    @property
    def alive(self) -> bool:
        """False when what was watched is gone."""
        return bool(self._stream.alive)

    async def next(self) -> Document | None:
        """The next event; None where none came for WATCH_WAIT_S."""
        self._pending = asyncio.ensure_future(self._bounded(self._stream.try_next, WATCH_TIMEOUT_S))
        return cast("Document | None", await asyncio.shield(self._pending))

    async def close(self) -> None:
        """A thread may still be at `next`: that ends first."""
        if self._pending is not None:
            await asyncio.wait([self._pending])
        with suppress(StoreUnavailableError):
            await self._bounded(self._stream.close, LOOK_TIMEOUT_S)


@asynccontextmanager
async def open_mongo(
    uri: str, *, ca_file: Path | None = None, pool_size: int = POOL_SIZE, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[Mongo]:
    """Connects when it is first used. `ca_file` turns TLS on and holds the authorities to trust, as PEM; without it the
    address says whether TLS is used, and the system's authorities count. Raises ValueError for an address or a file
    that is none."""
    mongo = Mongo(_client(uri, ca_file, pool_size, timeout_s), timeout_s=timeout_s)
    try:
        yield mongo
    finally:
        await mongo.close()


async def schema_version(database: Database) -> int | None:
    """The database's schema; None where there is none."""
    found = await database[SCHEMA].find_one({"_id": SCHEMA_ID})
    return None if found is None else int(found["version"])


def check_schema(version: int | None) -> None:
    """Raises SchemaVersionError unless it is the one that this release needs."""
    if version == NEEDED:
        return
    if version is not None and version > NEEDED:
        raise SchemaVersionError(
            f"the database has schema {version}, this release knows {NEEDED}: it was written by a newer release"
        )
    found = "no schema" if version is None else f"schema {version}"
    raise SchemaVersionError(f"the database has {found}, this release needs {NEEDED}: run `ai-middleware migrate`")


def _client(uri: str, ca_file: Path | None, pool_size: int, timeout_s: float) -> AsyncIOMotorClient[Document]:
    check_address(uri)
    milliseconds = round(timeout_s * 1000)
    trusted: dict[str, Any] = {} if ca_file is None else {"tls": True, "tlsCAFile": str(ca_file)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # an option that is unknown, or has a wrong value
            return AsyncIOMotorClient(
                uri,
                appname="ai-middleware",
                maxPoolSize=pool_size,
                serverSelectionTimeoutMS=milliseconds,
                connectTimeoutMS=min(milliseconds, round(CONNECT_TIMEOUT_S * 1000)),
                socketTimeoutMS=milliseconds,
                waitQueueTimeoutMS=milliseconds,
                retryWrites=True,
                retryReads=True,
                w="majority",
                readConcernLevel="majority",
                readPreference="primary",
                uuidRepresentation="standard",
                tz_aware=True,
                tzinfo=UTC,
                **trusted,
            )
    except (ConfigurationError, UserWarning, ValueError):  # their texts may quote a part of the password
        raise ValueError("is not an address that MongoDB's driver understands: look at its options") from None
    except OSError:
        raise ValueError(f"{ca_file} can't be read as a file of certificates") from None


def _may_repeat(error: PyMongoError, label: str, give_up: float) -> bool:
    return error.has_error_label(label) and asyncio.get_running_loop().time() < give_up


def _name(error: OperationFailure) -> str:
    """Without the server's text, which quotes values."""
    return f"{error.code} {(error.details or {}).get('codeName') or type(error).__name__}"


def _told_apart(error: Exception) -> Exception:
    if isinstance(error, OperationFailure):
        if error.code in _VALUES_FAULT:
            return ValueError(f"the database can't hold this: {_name(error)}")
        refused = error.code in _REFUSALS
        return (MongoRefusedError if refused else StoreUnavailableError)(f"MongoDB: {_name(error)}")
    if isinstance(error, DocumentTooLarge | BSONError | OverflowError):
        return ValueError(f"the database can't hold this: {type(error).__name__}")
    if isinstance(error, ServerSelectionTimeoutError):
        for name, said in _TOLD.items():
            if name in str(error):
                return MongoRefusedError(f"MongoDB: {said}")
        return StoreUnavailableError("MongoDB: no primary can be reached")
    return StoreUnavailableError(f"MongoDB: {type(error).__name__}")
