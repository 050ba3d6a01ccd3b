"""Webhooks: who is told of what, and what is on its way, as they are stored. Times are aware UTC, in whole
milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that an organisation's events are sent to. `events`: the types that it wants. `sealed`: the secret
    that signs, encrypted; `former`: the one before, which signs too until `former_until`. `disabled_reason` is for
    people, where it was not they who disabled it."""

    id: str
    organisation: str
    url: str
    events: tuple[str, ...]
    description: str | None
    enabled: bool
    disabled_reason: str | None
    sealed: str
    former: str | None
    former_until: datetime | None
    revision: int
    created_at: datetime
    created_by: str
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """What happened, once: `id` is unique within the organisation."""

    id: str
    organisation: str
    type: str
    at: datetime


class DeliveryState(StrEnum):
    """FAILED: it is not tried again, unless somebody asks for it."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """An event on its way to one webhook. `body` is the JSON that is sent. `due_at`: when it is tried next, None unless
    it is PENDING. `attempts`: those that were begun; with `attempts_at_most` of them it is given up. `status`, `reason`
    and `attempted_at` tell of the last: the answer's HTTP status, None where there was no answer, and what was wrong,
    for people."""

    id: str
    organisation: str
    webhook_id: str
    event_id: str
    type: str
    body: str
    state: DeliveryState
    due_at: datetime | None
    attempts: int
    attempts_at_most: int
    status: int | None
    reason: str | None
    attempted_at: datetime | None
    created_at: datetime
