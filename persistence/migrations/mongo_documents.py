"""What MongoDB's documents look like: a JSON schema for each collection, which the server holds them to
(https://www.mongodb.com/docs/manual/core/schema-validation/)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]


def _object(required: Mapping[str, Any], **more: Any) -> Document:
    return {"bsonType": "object", "required": list(required), "properties": dict(required), **more}


_TEXT = {"bsonType": "string"}
_TEXT_OR_NONE = {"bsonType": ["string", "null"]}
_TIME = {"bsonType": "date"}
_TIME_OR_NONE = {"bsonType": ["date", "null"]}
_COUNT = {"bsonType": ["int", "long"], "minimum": 0}
_NUMBER = {"bsonType": ["int", "long"], "minimum": 1}
_MONEY = {"bsonType": "decimal", "minimum": 0}

CONFIG = _object(
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
VERSION = _object(
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
RULE = _object(
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
BOOK = _object({"_id": _TEXT, "rules": _COUNT})

_LIST_OR_NONE = {"bsonType": ["array", "null"], "items": _TEXT}
_LIST = {"bsonType": "array", "items": _TEXT}
API_KEY = _object(
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
API_KEY_BOOK = _object({"_id": _TEXT, "keys": _COUNT})
API_KEY_DIGEST = _object({"_id": _TEXT, "organisation": _TEXT, "key_id": _TEXT})

PROVIDER_KEY = _object(
    {
        "_id": _object({"organisation": _TEXT, "provider": _TEXT}, additionalProperties=False),
        "sealed": _TEXT,
        "hint": _TEXT,
        "created_at": _TIME,
        "created_by": _TEXT,
    }
)

AUDIT_EVENT = _object(
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
LIMIT = _object(
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

WEBHOOK = _object(
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
WEBHOOK_BOOK = _object({"_id": _TEXT, "webhooks": _COUNT})
WEBHOOK_EVENT = _object(
    {
        "_id": _object({"organisation": _TEXT, "id": _TEXT}, additionalProperties=False),
        "type": _TEXT,
        "at": _TIME,
    }
)
WEBHOOK_DELIVERY = _object(
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
TRUSTED_DOCUMENT = _object({"_id": _TEXT, "text": _TEXT, "name": _TEXT, "registered_at": _TIME})
_KEPT = _object({"text": _TEXT_OR_NONE, "file": _TEXT_OR_NONE}, additionalProperties=False)
BATCH = _object(
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
BATCH_ITEM = _object(
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
VENDOR_RUN = _object(
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
JOB_FAILURES = _object({"_id": _TEXT, "failures": _NUMBER, "failed_at": _TIME})
LEADER = _object({"_id": _TEXT, "holder": _TEXT, "until": _TIME})
