"""What webhooks are told of, and how it is put."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson

from persistence.webhook_records import DeliveryState, Webhook, WebhookDelivery

from .ids import new_id

EVENT_PREFIX, DELIVERY_PREFIX = "evt_", "whd_"
MAX_BODY_BYTES = 64 * 1024
TEST_TYPE = "webhook.test"
RETRY_DELAYS_S = (1, 10, 60, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""How long a delivery rests after its first try that failed, its second, and so on; after one more it is given up."""
MAX_ATTEMPTS = len(RETRY_DELAYS_S) + 1


class EventType(StrEnum):
    """What webhooks may ask for. The values are part of the API."""

    BUDGET_THRESHOLD_REACHED = "budget.threshold_reached"
    BATCH_COMPLETED = "batch.completed"


def event_id(kind: str, name: str) -> str:
    """The same for the same event: a receiver tells by it what it has had already. `name` is unique within the
    organisation's events of the type."""
    return EVENT_PREFIX + sha256(f"{kind}\n{name}".encode()).hexdigest()[:32]


def body_of(kind: str, at: datetime, data: Mapping[str, Any]) -> str:
    """Raises ValueError for more than MAX_BODY_BYTES."""
    body = orjson.dumps({"type": kind, "timestamp": at.isoformat(), "data": data})
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"an event has at most {MAX_BODY_BYTES} bytes, not {len(body)}")
    return body.decode()


def new_delivery(webhook: Webhook, event: str, kind: str, body: str, at: datetime) -> WebhookDelivery:
    """Due at once."""
    return WebhookDelivery(
        id=new_id(DELIVERY_PREFIX)[0],
        organisation=webhook.organisation,
        webhook_id=webhook.id,
        event_id=event,
        type=kind,
        body=body,
        state=DeliveryState.PENDING,
        due_at=at,
        attempts=0,
        attempts_at_most=MAX_ATTEMPTS,
        status=None,
        reason=None,
        attempted_at=None,
        created_at=at,
    )


def rest_s(delivery: WebhookDelivery) -> int | None:
    """For how long a delivery rests after a try that failed; None where it was the last."""
    left = delivery.attempts_at_most - delivery.attempts
    return RETRY_DELAYS_S[-left] if 0 < left <= len(RETRY_DELAYS_S) else None
