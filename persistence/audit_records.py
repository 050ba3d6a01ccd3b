"""What the audit log keeps of a write. Times are aware UTC, in whole milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

ID_PREFIX = "aud_"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TIME_SHIFT = 80  # RFC 9562, 5.7: what follows a UUIDv7's 48 bits of time


class Action(StrEnum):
    """What was done. The values are part of the API."""

    CONFIG_CREATE = "config.create"
    CONFIG_UPDATE = "config.update"
    CONFIG_PUBLISH = "config.publish"
    CONFIG_ROLLBACK = "config.rollback"
    CONFIG_ARCHIVE = "config.archive"
    CONFIG_UNARCHIVE = "config.unarchive"
    PRICE_SET = "price.set"
    PRICE_END = "price.end"
    API_KEY_CREATE = "api_key.create"
    API_KEY_UPDATE = "api_key.update"
    API_KEY_ROTATE = "api_key.rotate"
    API_KEY_REVOKE = "api_key.revoke"
    PROVIDER_KEY_SET = "provider_key.set"
    PROVIDER_KEY_DELETE = "provider_key.delete"
    LIMITS_SET = "limits.set"
    LIMITS_REMOVE = "limits.remove"
    WEBHOOK_CREATE = "webhook.create"
    WEBHOOK_UPDATE = "webhook.update"
    WEBHOOK_ROTATE = "webhook.rotate"
    WEBHOOK_DELETE = "webhook.delete"
    WEBHOOK_TEST = "webhook.test"
    WEBHOOK_REDELIVER = "webhook.redeliver"
    TOKEN_MINT = "token.mint"  # noqa: S105  # a name, no secret
    USAGE_CORRECT = "usage.correct"
    USAGE_EXPORT = "usage.export"
    BATCH_SUBMIT = "batch.submit"
    BATCH_CANCEL = "batch.cancel"
    BATCH_RETRY = "batch.retry"
    BATCH_UPLOAD = "batch.upload"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """A write. `id` is `aud_` and the hex digits of a UUIDv7, whose millisecond `at` is. `actor` is the subject of the
    token, or the id of the API key; `key_id` that of the key that was presented, or by which the token was minted.
    `address` is where the call came from, None where that is not known. `before` and `after` are JSON objects of the
    fields that changed; None where nothing stood before, or stands after."""

    id: str
    organisation: str
    at: datetime
    actor: str
    key_id: str | None
    address: str | None
    request_id: str
    action: str
    subject_kind: str
    subject_id: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """All given conditions hold at once. `since` is inclusive, `until` exclusive."""

    action: str | None = None
    subject_id: str | None = None
    actor: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def first_id(time: datetime) -> str:
    """No event of that time or later has a lesser id, and none of before a greater one."""
    milliseconds = max(0, -((_EPOCH - time) // _MILLISECOND))  # rounded up
    return f"{ID_PREFIX}{milliseconds << _TIME_SHIFT:032x}"
