"""The schema of MongoDB: its collections with their validators and indexes, and the number that says which one it is.

Every step may be taken again, and by several at once: the server takes a collection, a validator or an index that is
there already for done. So a step that was cut off is mended by the next run, and nothing has to be locked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import CollectionInvalid, OperationFailure

from ..key_records import FORGOTTEN_AFTER
from ..mongo.client import NEEDED, SCHEMA, SCHEMA_ID, Database, Document, check_schema, open_mongo, schema_version
from ..queue_records import FAILURES_KEPT_FOR
from .mongo_documents import (
    API_KEY,
    API_KEY_BOOK,
    API_KEY_DIGEST,
    AUDIT_EVENT,
    BATCH,
    BATCH_ITEM,
    BOOK,
    CONFIG,
    JOB_FAILURES,
    LEADER,
    LIMIT,
    PROVIDER_KEY,
    RULE,
    TRUSTED_DOCUMENT,
    VENDOR_RUN,
    VERSION,
    WEBHOOK,
    WEBHOOK_BOOK,
    WEBHOOK_DELIVERY,
    WEBHOOK_EVENT,
)

REACH_TIMEOUT_S = 5.0
TIMEOUT_S = 600.0  # an index over many documents takes a while
_EXISTS = 48  # NamespaceExists


_COLLECTIONS: Mapping[str, tuple[Document, tuple[IndexModel, ...]]] = {
    "configs": (
        CONFIG,
        (
            IndexModel([("_id.organisation", ASCENDING), ("id", ASCENDING)], name="id", unique=True),
            IndexModel(
                [("_id.organisation", ASCENDING), ("updated_at", DESCENDING), ("_id.slug", DESCENDING)], name="updated"
            ),
        ),
    ),
    "config_versions": (VERSION, ()),
    "price_rules": (RULE, (IndexModel([("_id.organisation", ASCENDING), ("until", ASCENDING)], name="until"),)),
    "price_books": (BOOK, ()),
}


async def _configs_and_prices(database: Database) -> None:
    for name, (schema, indexes) in _COLLECTIONS.items():
        await _make(database, name, schema)
        if indexes:
            await database[name].create_indexes(list(indexes))


async def _live_configs(database: Database) -> None:
    """Lists leave out the archived, of which there may be any number: an index that has none of them."""
    order = [("_id.organisation", ASCENDING), ("updated_at", DESCENDING), ("_id.slug", DESCENDING)]
    live = IndexModel(order, name="live", partialFilterExpression={"archived_at": None})
    await database.configs.create_indexes([live])


async def _api_keys(database: Database) -> None:
    """A digest that has ended is forgotten by the server itself, a while later."""
    await _make(database, "api_keys", API_KEY)
    await _make(database, "api_key_books", API_KEY_BOOK)
    await _make(database, "api_key_digests", API_KEY_DIGEST)
    of_a_key = IndexModel([("organisation", ASCENDING), ("key_id", ASCENDING)], name="key")
    forgotten = IndexModel(
        [("ends_at", ASCENDING)], name="forgotten", expireAfterSeconds=int(FORGOTTEN_AFTER.total_seconds())
    )
    await database.api_key_digests.create_indexes([of_a_key, forgotten])


async def _provider_keys(database: Database) -> None:
    await _make(database, "provider_keys", PROVIDER_KEY)


async def _audit_log(database: Database) -> None:
    await _make(database, "audit_events", AUDIT_EVENT)
    await database.audit_events.create_indexes(
        [
            IndexModel([("_id.organisation", ASCENDING), (name, ASCENDING), ("_id.id", DESCENDING)], name=name)
            for name in ("action", "subject_id", "actor")
        ]
    )


async def _limits(database: Database) -> None:
    await _make(database, "limits", LIMIT)


async def _webhooks(database: Database) -> None:
    """`due_at` is there while a delivery is to be tried: its index has no others."""
    await _make(database, "webhooks", WEBHOOK)
    await _make(database, "webhook_books", WEBHOOK_BOOK)
    await _make(database, "webhook_events", WEBHOOK_EVENT)
    await _make(database, "webhook_deliveries", WEBHOOK_DELIVERY)
    await database.webhook_events.create_indexes([IndexModel([("at", ASCENDING)], name="at")])
    of_a_webhook = [("_id.organisation", ASCENDING), ("webhook_id", ASCENDING)]
    await database.webhook_deliveries.create_indexes(
        [
            IndexModel([("due_at", ASCENDING)], name="due", sparse=True),
            IndexModel([*of_a_webhook, ("_id.id", DESCENDING)], name="of"),
            IndexModel([*of_a_webhook, ("state", ASCENDING)], name="state"),
            IndexModel([("created_at", ASCENDING)], name="made"),
        ]
    )


async def _batches(database: Database) -> None:
    """Of batches that have not ended, and of those that were never opened, indexes of their own: they are few."""
    await _make(database, "batches", BATCH)
    await _make(database, "batch_items", BATCH_ITEM)
    await _make(database, "batch_vendor_runs", VENDOR_RUN)
    await _make(database, "leaders", LEADER)
    organisation, of_a_batch = ("_id.organisation", ASCENDING), ("_id.batch", ASCENDING)
    key = {"idempotency_key": {"$gt": ""}, "opened": True}
    await database.batches.create_indexes(
        [
            IndexModel(
                [organisation, ("idempotency_key", ASCENDING)], name="key", unique=True, partialFilterExpression=key
            ),
            IndexModel(
                [organisation, ("_id.id", ASCENDING)], name="active", partialFilterExpression={"ended_at": None}
            ),
            IndexModel([("ended_at", ASCENDING)], name="ended"),
            IndexModel(
                [organisation, ("created_at", ASCENDING)], name="unopened", partialFilterExpression={"opened": False}
            ),
        ]
    )
    state, index = ("state", ASCENDING), ("_id.index", ASCENDING)
    await database.batch_items.create_indexes(
        [
            IndexModel([organisation, of_a_batch, state, index], name="state"),
            IndexModel([organisation, of_a_batch, state, ("due", ASCENDING), index], name="due"),
            IndexModel(
                [organisation, of_a_batch, ("mark.at", ASCENDING)],
                name="marks",
                partialFilterExpression={"mark.at": {"$exists": True}},
            ),
        ]
    )


async def _trusted_documents(database: Database) -> None:
    await _make(database, "trusted_documents", TRUSTED_DOCUMENT)


async def _job_failures(database: Database) -> None:
    """Forgotten by the server itself."""
    await _make(database, "job_failures", JOB_FAILURES)
    kept_s = int(FAILURES_KEPT_FOR.total_seconds())
    forgotten = IndexModel([("failed_at", ASCENDING)], name="forgotten", expireAfterSeconds=kept_s)
    await database.job_failures.create_indexes([forgotten])


async def _make(database: Database, name: str, schema: Document) -> None:
    validator = {"$jsonSchema": schema}
    try:
        await database.create_collection(name, validator=validator, check_exists=False)
    except (CollectionInvalid, OperationFailure) as error:
        if isinstance(error, OperationFailure) and error.code != _EXISTS:
            raise
        await database.command("collMod", name, validator=validator)


_STEPS: tuple[Callable[[Database], Awaitable[None]], ...] = (
    _configs_and_prices,
    _live_configs,
    _api_keys,
    _provider_keys,
    _audit_log,
    _limits,
    _webhooks,
    _trusted_documents,
    _batches,
    _job_failures,
)
"""Step n makes schema n of schema n - 1. Expand first, contract in a later release."""

assert len(_STEPS) == NEEDED  # noqa: S101  # a step without its number would never be asked for


async def migrate(uri: str, *, ca_file: Path | None = None) -> None:
    """Bring the database to NEEDED. Safe to call twice, and from several places at once. Raises SchemaVersionError for
    a newer schema, StoreUnavailableError for a failure, ValueError for an address that is none."""
    async with open_mongo(uri, ca_file=ca_file, timeout_s=REACH_TIMEOUT_S) as mongo:
        await mongo.administer(_migrate, timeout_s=TIMEOUT_S)


async def _migrate(database: Database) -> None:
    version = await schema_version(database) or 0
    if version > NEEDED:
        check_schema(version)
    for number, step in enumerate(_STEPS[version:], version + 1):
        await step(database)
        await database[SCHEMA].update_one({"_id": SCHEMA_ID}, {"$max": {"version": number}}, upsert=True)
