"""The schema of MongoDB: its collections with their validators and indexes, and the number that says which one it is.

Every step may be taken again, and by several at once: the server takes a collection, a validator or an index that is
there already for done. So a step that was cut off is mended by the next run, and nothing has to be locked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import CollectionInvalid, OperationFailure

from ..key_records import FORGOTTEN_AFTER
from ..mongo.client import NEEDED, SCHEMA, SCHEMA_ID, Database, Document, check_schema, open_mongo, schema_version

REACH_TIMEOUT_S = 5.0
TIMEOUT_S = 600.0  # an index over many documents takes a while
_EXISTS = 48  # NamespaceExists


def _object(required: Mapping[str, Any], **more: Any) -> Document:
    return {"bsonType": "object", "required": list(required), "properties": dict(required), **more}


_TEXT = {"bsonType": "string"}
_TEXT_OR_NONE = {"bsonType": ["string", "null"]}
_TIME = {"bsonType": "date"}
_TIME_OR_NONE = {"bsonType": ["date", "null"]}
_COUNT = {"bsonType": ["int", "long"], "minimum": 0}
_NUMBER = {"bsonType": ["int", "long"], "minimum": 1}
_MONEY = {"bsonType": "decimal", "minimum": 0}

_CONFIG = _object(
    {
        "_id": _object({"organisation": _TEXT, "slug": _TEXT}, additionalProperties=False),
        "id": _TEXT,
        "revision": _NUMBER,
        "created_at": _TIME,
        "updated_at": _TIME,
        "published": {"bsonType": ["int", "long", "null"], "minimum": 1},
        "versions": _COUNT,
        "archived_at": _TIME_OR_NONE,
        "draft": _TEXT,
        "model": _TEXT,
        "labels": {"bsonType": "array", "items": _object({"name": _TEXT, "value": _TEXT})},
        "text": _TEXT,
    }
)
_VERSION = _object(
    {
        "_id": _object({"organisation": _TEXT, "config_id": _TEXT, "number": _NUMBER}, additionalProperties=False),
        "content": _TEXT,
        "created_at": _TIME,
        "created_by": _TEXT,
    }
)
_OVERRIDE = _object(
    {"input": _MONEY, "output": _MONEY},
)
_DISCOUNT = _object({"percent": {"bsonType": "decimal"}}, additionalProperties=False)
_RULE = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "provider": _TEXT_OR_NONE,
        "model": _TEXT_OR_NONE,
        "terms": {"oneOf": [_OVERRIDE, _DISCOUNT]},
        "since": _TIME,
        "until": _TIME_OR_NONE,
        "note": _TEXT_OR_NONE,
        "created_at": _TIME,
        "created_by": _TEXT,
    }
)
_BOOK = _object({"_id": _TEXT, "rules": _COUNT})

_LIST_OR_NONE = {"bsonType": ["array", "null"], "items": _TEXT}
_LIST = {"bsonType": "array", "items": _TEXT}
_API_KEY = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "name": _TEXT,
        "hint": _TEXT,
        "grant": _object(
            {
                "scopes": _LIST,
                "roles": _LIST,
                "models": _LIST_OR_NONE,
                "configs": _LIST_OR_NONE,
                "networks": _LIST_OR_NONE,
            },
            additionalProperties=False,
        ),
        "revision": _NUMBER,
        "created_at": _TIME,
        "created_by": _TEXT,
        "updated_at": _TIME,
        "expires_at": _TIME_OR_NONE,
        "revoked_at": _TIME_OR_NONE,
        "revoked_by": _TEXT_OR_NONE,
        "last_used_at": _TIME_OR_NONE,
    }
)
_API_KEY_DIGEST = _object({"_id": _TEXT, "organisation": _TEXT, "key_id": _TEXT})

_PROVIDER_KEY = _object(
    {
        "_id": _object({"organisation": _TEXT, "provider": _TEXT}, additionalProperties=False),
        "sealed": _TEXT,
        "hint": _TEXT,
        "created_at": _TIME,
        "created_by": _TEXT,
    }
)

_AUDIT_EVENT = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "at": _TIME,
        "actor": _TEXT,
        "key_id": _TEXT_OR_NONE,
        "address": _TEXT_OR_NONE,
        "request_id": _TEXT,
        "action": _TEXT,
        "subject_kind": _TEXT,
        "subject_id": _TEXT,
        "before": _TEXT_OR_NONE,
        "after": _TEXT_OR_NONE,
    }
)

_COUNT_OR_NONE = {"bsonType": ["int", "long", "null"], "minimum": 0}
_MONEY_OR_NONE = {"bsonType": ["decimal", "null"], "minimum": 0}
_LIMIT = _object(
    {
        "_id": _object({"organisation": _TEXT, "limited": _TEXT, "name": _TEXT}, additionalProperties=False),
        "requests_per_minute": _COUNT_OR_NONE,
        "tokens_per_minute": _COUNT_OR_NONE,
        "usd_per_day": _MONEY_OR_NONE,
        "usd_per_month": _MONEY_OR_NONE,
        "streams": _COUNT_OR_NONE,
        "updated_at": _TIME,
        "updated_by": _TEXT,
    }
)

_WEBHOOK = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "url": _TEXT,
        "events": _LIST,
        "description": _TEXT_OR_NONE,
        "enabled": {"bsonType": "bool"},
        "disabled_reason": _TEXT_OR_NONE,
        "sealed": _TEXT,
        "former": _TEXT_OR_NONE,
        "former_until": _TIME_OR_NONE,
        "revision": _NUMBER,
        "created_at": _TIME,
        "created_by": _TEXT,
        "updated_at": _TIME,
    }
)
_WEBHOOK_EVENT = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "type": _TEXT,
        "at": _TIME,
    }
)
_WEBHOOK_DELIVERY = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "webhook_id": _TEXT,
        "event_id": _TEXT,
        "type": _TEXT,
        "body": _TEXT,
        "state": _TEXT,
        "attempts": _COUNT,
        "attempts_at_most": _COUNT,
        "status": _COUNT_OR_NONE,
        "reason": _TEXT_OR_NONE,
        "attempted_at": _TIME_OR_NONE,
        "created_at": _TIME,
    }
)
_TRUSTED_DOCUMENT = _object({"_id": _TEXT, "text": _TEXT, "name": _TEXT, "registered_at": _TIME})
_KEPT = _object({"text": _TEXT_OR_NONE, "file": _TEXT_OR_NONE}, additionalProperties=False)
_BATCH = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "opened": {"bsonType": "bool"},
        "state": _TEXT,
        "mode": _TEXT,
        "submitter": _object({"subject": _TEXT, "key_id": _TEXT_OR_NONE}),
        "digest": _TEXT,
        "created_at": _TIME,
        "started_at": _TIME,
        "deadline": _TIME_OR_NONE,
        "ended_at": _TIME_OR_NONE,
        "idempotency_key": _TEXT_OR_NONE,
        "labels": {"bsonType": "array", "items": _object({"name": _TEXT, "value": _TEXT})},
        "counts": _object(
            dict.fromkeys(("waiting", "queued", "running", "succeeded", "failed", "cancelled"), _COUNT),
            additionalProperties=False,
        ),
        "cost": _MONEY,
        "unpriced": _COUNT,
        "run": _NUMBER,
        "result_file": _TEXT_OR_NONE,
    }
)
_BATCH_ITEM = _object(
    {
        "_id": _object({"organisation": _TEXT, "batch": _TEXT, "index": _COUNT}, additionalProperties=False),
        "input": _KEPT,
        "state": _TEXT,
        "due": _TIME_OR_NONE,
        "fence": _COUNT,
        "failures": _COUNT,
        "lost": _COUNT,
        "completion_id": _TEXT_OR_NONE,
        "cost": _MONEY_OR_NONE,
        "ended_at": _TIME_OR_NONE,
    }
)
_VENDOR_RUN = _object(
    {
        "_id": _object({"organisation": _TEXT, "batch": _TEXT, "number": _NUMBER}, additionalProperties=False),
        "provider": _TEXT,
        "model": _TEXT,
        "key_id": _TEXT,
        "created_at": _TIME,
        "vendor_id": _TEXT_OR_NONE,
        "poll_at": _TIME_OR_NONE,
        "ended": {"bsonType": "bool"},
    }
)
_LEADER = _object({"_id": _TEXT, "holder": _TEXT, "until": _TIME})

_COLLECTIONS: Mapping[str, tuple[Document, tuple[IndexModel, ...]]] = {
    "configs": (
        _CONFIG,
        (
            IndexModel([("_id.organisation", ASCENDING), ("id", ASCENDING)], name="id", unique=True),
            IndexModel(
                [("_id.organisation", ASCENDING), ("updated_at", DESCENDING), ("_id.slug", DESCENDING)], name="updated"
            ),
        ),
    ),
    "config_versions": (_VERSION, ()),
    "price_rules": (_RULE, (IndexModel([("_id.organisation", ASCENDING), ("until", ASCENDING)], name="until"),)),
    "price_books": (_BOOK, ()),
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
    await _make(database, "api_keys", _API_KEY)
    await _make(database, "api_key_books", _object({"_id": _TEXT, "keys": _COUNT}))
    await _make(database, "api_key_digests", _API_KEY_DIGEST)
    of_a_key = IndexModel([("organisation", ASCENDING), ("key_id", ASCENDING)], name="key")
    forgotten = IndexModel(
        [("ends_at", ASCENDING)], name="forgotten", expireAfterSeconds=int(FORGOTTEN_AFTER.total_seconds())
    )
    await database.api_key_digests.create_indexes([of_a_key, forgotten])


async def _provider_keys(database: Database) -> None:
    await _make(database, "provider_keys", _PROVIDER_KEY)


async def _audit_log(database: Database) -> None:
    await _make(database, "audit_events", _AUDIT_EVENT)
    await database.audit_events.create_indexes(
        [
            IndexModel([("_id.organisation", ASCENDING), (name, ASCENDING), ("_id.id", DESCENDING)], name=name)
            for name in ("action", "subject_id", "actor")
        ]
    )


async def _limits(database: Database) -> None:
    await _make(database, "limits", _LIMIT)


async def _webhooks(database: Database) -> None:
    """`due_at` is there while a delivery is to be tried: its index has no others."""
    await _make(database, "webhooks", _WEBHOOK)
    await _make(database, "webhook_books", _object({"_id": _TEXT, "webhooks": _COUNT}))
    await _make(database, "webhook_events", _WEBHOOK_EVENT)
    await _make(database, "webhook_deliveries", _WEBHOOK_DELIVERY)
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
    await _make(database, "batches", _BATCH)
    await _make(database, "batch_items", _BATCH_ITEM)
    await _make(database, "batch_vendor_runs", _VENDOR_RUN)
    await _make(database, "leaders", _LEADER)
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
    await _make(database, "trusted_documents", _TRUSTED_DOCUMENT)


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
