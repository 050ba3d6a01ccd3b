"""Webhooks and their deliveries for tests, by hand."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from uuid_utils import uuid7

from persistence.webhook_records import DeliveryState, Webhook, WebhookDelivery, WebhookEvent
from tests.persistence.entries import NOON


def webhook(**changes: Any) -> Webhook:
    values: dict[str, Any] = {
        "id": f"whk_{uuid7().hex}",
        "organisation": "acme",
        "url": "https://hooks.example/a?b=c",
        "events": ("budget.threshold_reached",),
        "description": None,
        "enabled": True,
        "disabled_reason": None,
        "sealed": "env:v1:c2VhbGVk",
        "former": None,
        "former_until": None,
        "revision": 1,
        "created_at": NOON,
        "created_by": "somebody",
        "updated_at": NOON,
    }
    return Webhook(**values | changes)


def event(event_id: str = "evt_1", *, at: datetime = NOON, organisation: str = "acme") -> WebhookEvent:
    return WebhookEvent(event_id, organisation, "budget.threshold_reached", at)


def delivery(**changes: Any) -> WebhookDelivery:
    values: dict[str, Any] = {
        "id": f"whd_{uuid7().hex}",
        "organisation": "acme",
        "webhook_id": "whk_1",
        "event_id": "evt_1",
        "type": "budget.threshold_reached",
        "body": '{"data":{"é":"🔑"}}',
        "state": DeliveryState.PENDING,
        "due_at": NOON,
        "attempts": 0,
        "attempts_at_most": 3,
        "status": None,
        "reason": None,
        "attempted_at": None,
        "created_at": NOON,
    }
    return WebhookDelivery(**values | changes)
