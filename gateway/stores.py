"""Where things are kept: each store on the server that the settings name, or on the embedded default."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from persistence.inflight_slots import open_inflight_slot
from persistence.objects.store import FolderLinks, Objects, open_objects
from persistence.ports import (
    ApiKeyStore,
    AuditStore,
    BatchStore,
    ChangeFeed,
    ConfigStore,
    InflightLog,
    JobFailures,
    JobQueue,
    LedgerStore,
    LimitStore,
    PriceStore,
    ProviderKeyStore,
    StoreUnavailableError,
    TrustedDocumentStore,
    WebhookOutbox,
    WebhookStore,
)
from persistence.sqlite.api_keys import SQLiteApiKeys
from persistence.sqlite.audit import SQLiteAuditLog
from persistence.sqlite.batches import SQLiteBatches
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import Database, open_database
from persistence.sqlite.job_failures import SQLiteJobFailures
from persistence.sqlite.ledger import SQLiteLedger, open_sqlite_ledger
from persistence.sqlite.limits import SQLiteLimits
from persistence.sqlite.prices import SQLitePrices
from persistence.sqlite.provider_keys import SQLiteProviderKeys
from persistence.sqlite.queue import SQLiteQueue
from persistence.sqlite.trusted import SQLiteTrustedDocuments
from persistence.sqlite.webhook_outbox import SQLiteWebhookOutbox
from persistence.sqlite.webhooks import SQLiteWebhooks

from .readiness import Dependency
from .settings import Settings, SettingsError

if TYPE_CHECKING:
    from persistence.mongo.client import Mongo
    from persistence.rabbit.queue import RabbitQueue
    from persistence.redis.server import RedisServer
    from persistence.timescale.ledger import TimescaleLedger

# A driver is imported where it is needed: a start without its server does not load it.

DATABASE_FILE = "ai-middleware.db"
FILES_FOLDER = "files"
MONGODB = "MongoDB"
TIMESCALE = "TimescaleDB"
REDIS = "Redis"
RABBITMQ = "RabbitMQ"
OBJECT_STORE = "object storage"
ITEMS = "items"
WORKERS = "workers"

log = structlog.get_logger("runtime")


@dataclass(frozen=True, slots=True)
class Documents:
    """Where configs, price rules, keys, webhooks, registered documents, batches and the audit log are, and failures of
    jobs are counted. `feed` tells of other processes' writes; None where there are no others."""

    configs: ConfigStore
    prices: PriceStore
    api_keys: ApiKeyStore
    provider_keys: ProviderKeyStore
    audit: AuditStore
    limits: LimitStore
    webhooks: WebhookStore
    outbox: WebhookOutbox
    trusted: TrustedDocumentStore
    batches: BatchStore
    failures: JobFailures
    feed: ChangeFeed | None = None


@dataclass(frozen=True, slots=True)
class Stores:
    """All of a server's. `redis` is None where there are no other processes; `servers` are what `/readyz` asks.
    `waits`: entries wait in the queue while the ledger's store is away. `items` is the queue of batches;
    `bell` wakes who fills it."""

    inflight: InflightLog
    ledger: LedgerStore
    documents: Documents
    queue: JobQueue
    waits: bool
    items: JobQueue
    objects: Objects
    redis: RedisServer | None = None
    servers: Sequence[Dependency] = field(default_factory=tuple)
    bell: asyncio.Event = field(default_factory=asyncio.Event)


async def open_stores(
    settings: Settings, stack: AsyncExitStack, links: FolderLinks, *, beside_others: bool = False
) -> Stores:
    """`links` open files that are kept in a folder. `beside_others`: other processes are in DATA_DIR too. Raises
    SettingsError for what the operator can mend; a server that is away is waited for."""
    servers: list[Dependency] = []
    try:
        notes = settings.DATA_DIR / WORKERS if beside_others else settings.DATA_DIR  # servers have the folder itself
        notes.mkdir(exist_ok=True)
        several = beside_others or settings.MAX_WORKERS > 1
        inflight = stack.enter_context(open_inflight_slot(notes, several=several))
        database = await stack.enter_async_context(open_database(settings.DATA_DIR / DATABASE_FILE))
    except (OSError, StoreUnavailableError) as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
    ledger = await _open_ledger_store(settings, stack, database, servers)
    documents = await _open_documents(settings, stack, database, servers)
    stores = Stores(
        inflight=inflight,
        ledger=ledger,
        documents=documents,
        queue=await _open_queue(settings, stack, database, documents.failures, servers),
        waits=settings.TIMESCALE_SERVICE_URL is not None,
        items=await _open_items(settings, stack, database, documents.failures),
        objects=await _open_objects(settings, stack, links, servers),
        redis=await _open_redis(settings, stack, servers),
        servers=servers,
    )
    await asyncio.gather(*(server.trouble() for server in servers))  # so that each may be spared that answers now
    return stores


async def open_documents(
    settings: Settings, stack: AsyncExitStack, servers: list[Dependency] | None = None
) -> Documents:
    """These stores alone, for a command, or a worker of jobs. Raises SettingsError."""
    try:
        database = await stack.enter_async_context(open_database(settings.DATA_DIR / DATABASE_FILE))
    except StoreUnavailableError as error:
        raise SettingsError(f"DATA_DIR: {error}") from None
    return await _open_documents(settings, stack, database, [] if servers is None else servers)


@asynccontextmanager
async def open_usage_store(settings: Settings) -> AsyncIterator[LedgerStore]:
    """The ledger's store alone, for a command that books without a server. What was booked is summed up at the end.
    Raises SettingsError."""
    variable = "DATA_DIR" if settings.TIMESCALE_SERVICE_URL is None else "TIMESCALE_SERVICE_URL"
    try:
        async with AsyncExitStack() as stack:
            if settings.TIMESCALE_SERVICE_URL is not None:
                yield await open_timescale(settings, stack)
                return
            database = await stack.enter_async_context(open_database(settings.DATA_DIR / DATABASE_FILE))
            store = SQLiteLedger(database)
            yield store
            await store.fold(_now())
    except StoreUnavailableError as error:
        raise SettingsError(f"{variable}: {error}") from None


@asynccontextmanager
async def open_queue(settings: Settings) -> AsyncIterator[JobQueue]:
    """The queue alone, for a command that looks at it. Raises SettingsError."""
    try:
        async with AsyncExitStack() as stack:
            if settings.QUEUE_CONNECTIONURL is not None:
                yield await open_rabbit_queue(settings, stack, None)
                return
            database = await stack.enter_async_context(open_database(settings.DATA_DIR / DATABASE_FILE))
            yield SQLiteQueue(database, _now)
    except StoreUnavailableError as error:
        variable = "DATA_DIR" if settings.QUEUE_CONNECTIONURL is None else "QUEUE_CONNECTIONURL"
        raise SettingsError(f"{variable}: {error}") from None


async def open_timescale(settings: Settings, stack: AsyncExitStack) -> TimescaleLedger:
    from persistence.timescale.ledger import open_timescale_ledger

    assert settings.TIMESCALE_SERVICE_URL is not None  # noqa: S101  # who calls this has looked
    replica = settings.TIMESCALE_REPLICA_URL
    opening = open_timescale_ledger(
        settings.TIMESCALE_SERVICE_URL.get_secret_value(),
        replica_url=None if replica is None else replica.get_secret_value(),
        max_lag_s=settings.TIMESCALE_REPLICA_MAX_LAG_S,
        pool_size=settings.TIMESCALE_POOL_SIZE,
        statement_timeout_s=settings.TIMESCALE_TIMEOUT_S,
        policies=settings.ledger_policies(),
    )
    return await stack.enter_async_context(opening)


async def open_rabbit_queue(
    settings: Settings, stack: AsyncExitStack, failures: JobFailures | None, name: str | None = None
) -> RabbitQueue:
    """Of jobs, unless another `name` is given. `failures`: None for who takes none of them."""
    from persistence.rabbit.queue import open_rabbit

    assert settings.QUEUE_CONNECTIONURL is not None  # noqa: S101  # who calls this has looked
    try:
        opening = open_rabbit(
            settings.QUEUE_CONNECTIONURL.get_secret_value(),
            settings.QUEUE_NAME if name is None else name,
            failures,
            ca_file=settings.QUEUE_TLS_CA_FILE,
        )
        queue = await stack.enter_async_context(opening)
        await queue.probe()
    except (ValueError, OSError) as error:
        raise SettingsError(f"QUEUE_CONNECTIONURL: {error}") from None
    except StoreUnavailableError as error:
        log.warning("jobs can't be queued yet", reason=str(error))
    return queue


async def _open_ledger_store(
    settings: Settings, stack: AsyncExitStack, database: Database, servers: list[Dependency]
) -> LedgerStore:
    if settings.TIMESCALE_SERVICE_URL is None:
        return await stack.enter_async_context(open_sqlite_ledger(database))
    timescale = await open_timescale(settings, stack)
    servers.append(Dependency(TIMESCALE, timescale.look, spared=True))
    return timescale


async def _open_documents(
    settings: Settings, stack: AsyncExitStack, database: Database, servers: list[Dependency]
) -> Documents:
    if settings.MONGODB_CONNECTION_URI is None:
        return Documents(
            SQLiteConfigs(database),
            SQLitePrices(database),
            SQLiteApiKeys(database),
            SQLiteProviderKeys(database),
            SQLiteAuditLog(database),
            SQLiteLimits(database),
            SQLiteWebhooks(database),
            SQLiteWebhookOutbox(database),
            SQLiteTrustedDocuments(database),
            SQLiteBatches(database),
            SQLiteJobFailures(database),
        )
    from persistence.mongo import client

    try:
        opening = client.open_mongo(
            settings.MONGODB_CONNECTION_URI.get_secret_value(),
            ca_file=settings.MONGODB_TLS_CA_FILE,
            pool_size=settings.MONGODB_POOL_SIZE,
            timeout_s=settings.MONGODB_TIMEOUT_S,
        )
        mongo = await stack.enter_async_context(opening)
        servers.append(Dependency(MONGODB, mongo.look, spared=True))
        await mongo.probe()
    except (ValueError, client.MongoRefusedError) as error:
        raise SettingsError(f"MONGODB_CONNECTION_URI: {error}") from None
    except StoreUnavailableError as error:
        log.warning("configs and price rules can't be reached", reason=str(error))
    return _documents_on(mongo)


def _documents_on(mongo: Mongo) -> Documents:
    from persistence.mongo import (
        api_keys,
        audit,
        batches,
        changes,
        configs,
        job_failures,
        limits,
        prices,
        provider_keys,
        trusted,
        webhook_outbox,
        webhooks,
    )

    return Documents(
        configs.MongoConfigs(mongo),
        prices.MongoPrices(mongo),
        api_keys.MongoApiKeys(mongo),
        provider_keys.MongoProviderKeys(mongo),
        audit.MongoAuditLog(mongo),
        limits.MongoLimits(mongo),
        webhooks.MongoWebhooks(mongo),
        webhook_outbox.MongoWebhookOutbox(mongo),
        trusted.MongoTrustedDocuments(mongo),
        batches.MongoBatches(mongo),
        job_failures.MongoJobFailures(mongo),
        changes.MongoChanges(mongo),
    )


async def _open_queue(
    settings: Settings, stack: AsyncExitStack, database: Database, failures: JobFailures, servers: list[Dependency]
) -> JobQueue:
    if settings.QUEUE_CONNECTIONURL is None:
        return SQLiteQueue(database, _now)
    queue = await open_rabbit_queue(settings, stack, failures)
    servers.append(Dependency(RABBITMQ, queue.look, spared=True))
    return queue


async def _open_items(settings: Settings, stack: AsyncExitStack, database: Database, failures: JobFailures) -> JobQueue:
    """Beside the batches: whoever sees the one sees the other."""
    if settings.QUEUE_CONNECTIONURL is None or settings.MONGODB_CONNECTION_URI is None:
        return SQLiteQueue(database, _now, ITEMS)
    return await open_rabbit_queue(settings, stack, failures, f"{settings.QUEUE_NAME}.{ITEMS}")


async def _open_redis(settings: Settings, stack: AsyncExitStack, servers: list[Dependency]) -> RedisServer | None:
    if settings.REDIS_URI is None:
        return None
    from persistence.redis.server import open_redis

    opening = open_redis(settings.REDIS_URI.get_secret_value(), ca_file=settings.REDIS_TLS_CA_FILE)
    try:
        redis = await stack.enter_async_context(opening)
    except (ValueError, OSError) as error:
        raise SettingsError(f"REDIS_URI: {error}") from None
    servers.append(Dependency(REDIS, redis.look, spared=True))
    return redis


async def _open_objects(
    settings: Settings, stack: AsyncExitStack, links: FolderLinks, servers: list[Dependency]
) -> Objects:
    url = settings.OBJECT_STORE_URL
    where = settings.DATA_DIR / FILES_FOLDER if url is None else url
    try:
        opening = open_objects(where, links=links, ca_file=settings.OBJECT_STORE_TLS_CA_FILE)
        objects = await stack.enter_async_context(opening)
    except (ValueError, StoreUnavailableError) as error:
        raise SettingsError(f"{'DATA_DIR' if url is None else 'OBJECT_STORE_URL'}: {error}") from None
    if url is not None:
        servers.append(Dependency(OBJECT_STORE, objects.look, spared=True))
    return objects


def _now() -> datetime:
    return datetime.now(UTC)
