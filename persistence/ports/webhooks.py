"""Webhooks, and what is on its way to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from ..webhook_records import Webhook, WebhookDelivery, WebhookEvent
from .audit import Audit


class WebhookStore(Protocol):
    """An organisation's webhooks. Every method raises StoreUnavailableError, those that write ValueError for what can't
    be stored. What `audit` makes of a write is committed with it."""

    async def create(self, webhook: Webhook, *, at_most: int, audit: Audit[Webhook]) -> None:
        """Raises StoreConflictError where the organisation has so many."""
        ...

    async def of(self, organisation: str) -> Sequence[Webhook]:
        """The oldest first."""
        ...

    async def by_id(self, organisation: str, webhook_id: str) -> Webhook | None: ...

    async def save(self, webhook: Webhook, *, expected_revision: int, audit: Audit[Webhook]) -> Webhook | None:
        """In the place of what stands, at the next revision; what it is then. None where there is no such webhook.
        Raises StoreConflictError for another revision."""
        ...

    async def delete(self, organisation: str, webhook_id: str, *, audit: Audit[Webhook]) -> bool:
        """Whether there was one; else nothing is noted."""
        ...

    async def every(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[Webhook]:
        """All organisations', by organisation and id, those behind `after`: for the operator, who seals their secrets
        anew. Raises ValueError for a limit below 1."""
        ...

    async def reseal(self, webhook: Webhook, sealed: str, former: str | None) -> bool:
        """Only if its secrets are sealed as `webhook` says still; whether they were."""
        ...


class WebhookOutbox(Protocol):
    """Events, and their deliveries until they are made. Every method raises StoreUnavailableError."""

    async def add(self, event: WebhookEvent, deliveries: Sequence[WebhookDelivery]) -> bool:
        """All of it in one step; False, and nothing, where the organisation has an event with this id already. Raises
        ValueError for what can't be stored."""
        ...

    async def claim(
        self, *, now: datetime, until: datetime, busy: Collection[str], resting: Collection[str]
    ) -> WebhookDelivery | None:
        """The delivery that has been due the longest, its attempt counted; until `until` nobody else is given it. None
        of organisations in `busy`, or to webhooks in `resting`."""
        ...

    async def record(self, delivery: WebhookDelivery) -> bool:
        """What its attempt came to. Nothing where another attempt has begun since, or it is not PENDING."""
        ...

    async def again(self, delivery: WebhookDelivery) -> bool:
        """What is given up or was delivered is PENDING once more, as `delivery` says; nothing where it is PENDING, or
        has been tried since."""
        ...

    async def by_id(self, organisation: str, delivery_id: str) -> WebhookDelivery | None: ...

    async def page(
        self, organisation: str, webhook_id: str, *, limit: int, before: str | None = None
    ) -> Sequence[WebhookDelivery]:
        """Newest first; `before`: with smaller ids alone. Raises ValueError for a limit below 1."""
        ...

    async def waiting(self, organisation: str, webhook_id: str, *, at_most: int) -> int:
        """How many are PENDING, counted up to `at_most`."""
        ...

    async def forget(self, *, deliveries_before: datetime, events_before: datetime) -> int:
        """What was made before is gone, but for what is PENDING; some at a time. How many were."""
        ...
