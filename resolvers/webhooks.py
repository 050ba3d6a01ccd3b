"""Webhooks: addresses that are told of what happens in an organisation, by signed events (Standard Webhooks)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from uuid_utils import uuid7

from persistence.audit_records import Action
from persistence.ports import StoreConflictError, StoreUnavailableError, WebhookOutbox, WebhookStore
from persistence.webhook_records import DeliveryState, Webhook, WebhookDelivery, WebhookEvent
from providers.addresses import OutboundAddresses

from .audit import AuditLog, Subject, event
from .audit_fields import WEBHOOK, audit_of_webhook
from .errors import BadUserInputError, ConflictError, NotFoundError, ServiceUnavailableError
from .principal import Principal
from .provider_keys import Sealing
from .webhook_checks import check_description, check_url, checked_events
from .webhook_deliveries import LEASE_S, Deliveries
from .webhook_events import DELIVERY_PREFIX, MAX_ATTEMPTS, TEST_TYPE, EventType, body_of, event_id, new_delivery
from .webhook_sending import WebhookSender
from .webhook_signature import new_secret

ID_PREFIX = "whk_"
MAX_WEBHOOKS = 20
MAX_WAITING = 1_000
"""Deliveries to one webhook: what comes beyond is given up at once, and can be asked for later."""
MAX_OVERLAP_S = 7 * 86_400
MAX_PAGE = 100

_ID = re.compile(rf"{ID_PREFIX}[0-9a-f]{{32}}")
_DELIVERY_ID = re.compile(rf"{DELIVERY_PREFIX}[0-9a-f]{{32}}")


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """`events` are values of EventType."""

    url: str
    events: Sequence[str]
    description: str | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """What is None stays."""

    url: str | None = None
    events: Sequence[str] | None = None
    description: str | None = None
    enabled: bool | None = None


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Newest first; `more`: there are older ones."""

    deliveries: tuple[WebhookDelivery, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The use cases. Those of a principal are within its organisation, and all raise ServiceUnavailableError;
    NotFoundError, the same for what does not exist and what another organisation has; and what they say themselves.
    `now` is aware UTC."""

    store: WebhookStore
    outbox: WebhookOutbox
    sender: WebhookSender
    sending: Deliveries
    sealing: Sealing
    outbound: OutboundAddresses
    now: Callable[[], datetime]

    async def emit(
        self,
        organisation: str,
        kind: EventType,
        data: Mapping[str, Any],
        *,
        id: str,  # noqa: A002  # the event's
        only: str | None = None,
    ) -> bool:
        """An event, sent to whoever wants it from here on: it is kept when this returns. `data` is what JSON can hold;
        `id` names the event within the organisation and the type, so that emitting it again, from whatever process, is
        emitting it once. `only`: to the webhook of that id alone, whatever else it asks for; to none where it is gone
        or disabled. Whether this was the first time. Raises StoreUnavailableError, and ValueError for too much data."""
        at = self._time()
        event_name, body = event_id(kind, id), body_of(kind, at, data)
        enabled = [each for each in await self.store.of(organisation) if each.enabled]
        wanting = [each for each in enabled if (kind in each.events if only is None else each.id == only)]
        deliveries = [await self._bounded(new_delivery(each, event_name, kind, body, at)) for each in wanting]
        added = await self.outbox.add(WebhookEvent(event_name, organisation, kind, at), deliveries)
        if added and deliveries:
            self.sending.wake()
        return added

    async def create(self, principal: Principal, asked: NewWebhook) -> tuple[str, Webhook]:
        """The secret, which is told here and never again. Raises BadUserInputError, and ConflictError where the
        organisation has MAX_WEBHOOKS."""
        check_url(asked.url, self.outbound)
        check_description(asked.description)
        now, secret, webhook_id = self._time(), new_secret(), ID_PREFIX + uuid7().hex
        webhook = Webhook(
            id=webhook_id,
            organisation=principal.organisation,
            url=asked.url,
            events=checked_events(asked.events),
            description=asked.description,
            enabled=asked.enabled,
            disabled_reason=None,
            sealed=self.sealing.seal(secret, organisation=principal.organisation, name=webhook_id),
            former=None,
            former_until=None,
            revision=1,
            created_at=now,
            created_by=principal.subject,
            updated_at=now,
        )
        audit = audit_of_webhook(principal, Action.WEBHOOK_CREATE, webhook_id)
        with _told():
            await self.store.create(webhook, at_most=MAX_WEBHOOKS, audit=audit)
        return secret, webhook

    async def change(
        self, principal: Principal, webhook_id: str, change: WebhookChange, *, expected_revision: int | None = None
    ) -> Webhook:
        """Raises BadUserInputError; ConflictError for another revision."""
        standing = await self.get(principal, webhook_id)
        if change.url is not None:
            check_url(change.url, self.outbound)
        check_description(change.description)
        changed = replace(
            standing,
            url=standing.url if change.url is None else change.url,
            events=standing.events if change.events is None else checked_events(change.events),
            description=standing.description if change.description is None else change.description or None,
            enabled=standing.enabled if change.enabled is None else change.enabled,
            disabled_reason=standing.disabled_reason if change.enabled is None else None,
            updated_at=self._time(),
        )
        expected = standing.revision if expected_revision is None else expected_revision
        return await self._save(principal, Action.WEBHOOK_UPDATE, changed, expected)

    async def rotate_secret(self, principal: Principal, webhook_id: str, *, overlap_s: int) -> tuple[str, Webhook]:
        """A new secret, told here and never again; the one before signs too for `overlap_s` more. Raises
        BadUserInputError, and ConflictError where somebody else changes it."""
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise BadUserInputError(
                f"the overlap is 0 to {MAX_OVERLAP_S} seconds, not {overlap_s}", path=("input", "overlapSeconds")
            )
        standing, now, secret = await self.get(principal, webhook_id), self._time(), new_secret()
        rotated = replace(
            standing,
            sealed=self.sealing.seal(secret, organisation=standing.organisation, name=standing.id),
            former=standing.sealed if overlap_s else None,
            former_until=now + timedelta(seconds=overlap_s) if overlap_s else None,
            updated_at=now,
        )
        return secret, await self._save(principal, Action.WEBHOOK_ROTATE, rotated, standing.revision)

    async def delete(self, principal: Principal, webhook_id: str) -> None:
        """What is on its way to it is given up."""
        await self.get(principal, webhook_id)
        audit = audit_of_webhook(principal, Action.WEBHOOK_DELETE, webhook_id)
        with _told():
            if not await self.store.delete(principal.organisation, webhook_id, audit=audit):
                raise NotFoundError("no such webhook")

    async def listed(self, principal: Principal) -> Sequence[Webhook]:
        with _told():
            return await self.store.of(principal.organisation)

    async def get(self, principal: Principal, webhook_id: str) -> Webhook:
        if _ID.fullmatch(webhook_id) is None:
            raise NotFoundError("no such webhook")
        with _told():
            found = await self.store.by_id(principal.organisation, webhook_id)
        if found is None:
            raise NotFoundError("no such webhook")
        return found

    async def deliveries(self, principal: Principal, webhook_id: str, *, first: int, after: str | None) -> DeliveryPage:
        """Raises BadUserInputError for a page size beyond 1 to 100 or a cursor that this list did not make."""
        if not 1 <= first <= MAX_PAGE:
            raise BadUserInputError(f"first is between 1 and {MAX_PAGE}, not {first}", path=("first",))
        if after is not None and _DELIVERY_ID.fullmatch(after) is None:
            raise BadUserInputError("not a cursor of this list", path=("after",))
        await self.get(principal, webhook_id)
        with _told():
            found = await self.outbox.page(principal.organisation, webhook_id, limit=first + 1, before=after)
        return DeliveryPage(tuple(found[:first]), more=len(found) > first)

    async def test(self, principal: Principal, audit: AuditLog, webhook_id: str) -> WebhookDelivery:
        """An event of a type of its own is sent, once and now, also where the webhook is disabled: what came of it."""
        webhook, at = await self.get(principal, webhook_id), self._time()
        made = new_delivery(webhook, event_id(TEST_TYPE, uuid7().hex), TEST_TYPE, body_of(TEST_TYPE, at, {}), at)
        delivery = replace(made, due_at=at + timedelta(seconds=LEASE_S), attempts=1, attempts_at_most=1)
        subject = Subject(WEBHOOK, webhook_id)
        await audit.note(event(principal, Action.WEBHOOK_TEST, subject, before=None, after={"deliveryId": delivery.id}))
        with _told():
            await self.outbox.add(WebhookEvent(delivery.event_id, webhook.organisation, TEST_TYPE, at), [delivery])
            tried = self.sending.after(delivery, await self.sender.send(webhook, delivery))
            await self.outbox.record(tried)
        return tried

    async def redeliver(self, principal: Principal, audit: AuditLog, delivery_id: str) -> WebhookDelivery:
        """Once more from the beginning, with the event's own id. Raises ConflictError for one that is on its way, and
        where the webhook is disabled."""
        if _DELIVERY_ID.fullmatch(delivery_id) is None:
            raise NotFoundError("no such delivery")
        with _told():
            found = await self.outbox.by_id(principal.organisation, delivery_id)
        if found is None:
            raise NotFoundError("no such delivery")
        if not (await self.get(principal, found.webhook_id)).enabled:
            raise ConflictError("the webhook is disabled")
        if found.state is DeliveryState.PENDING:
            raise ConflictError("it is on its way already")
        again = replace(
            found,
            state=DeliveryState.PENDING,
            due_at=self._time(),
            attempts_at_most=found.attempts + MAX_ATTEMPTS,
        )
        subject = Subject(WEBHOOK, found.webhook_id)
        told = event(principal, Action.WEBHOOK_REDELIVER, subject, before=None, after={"deliveryId": delivery_id})
        await audit.note(told)
        with _told():
            if not await self.outbox.again(again):
                raise ConflictError("it is on its way already")
        self.sending.wake()
        return again

    async def _save(self, principal: Principal, action: Action, webhook: Webhook, expected: int) -> Webhook:
        audit = audit_of_webhook(principal, action, webhook.id)
        with _told():
            saved = await self.store.save(webhook, expected_revision=expected, audit=audit)
        if saved is None:
            raise NotFoundError("no such webhook")
        return saved

    async def _bounded(self, delivery: WebhookDelivery) -> WebhookDelivery:
        waiting = await self.outbox.waiting(delivery.organisation, delivery.webhook_id, at_most=MAX_WAITING)
        if waiting < MAX_WAITING:
            return delivery
        reason = f"{MAX_WAITING} deliveries wait for this webhook already"
        return replace(delivery, state=DeliveryState.FAILED, due_at=None, reason=reason)

    def _time(self) -> datetime:
        now = self.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


@contextmanager
def _told() -> Iterator[None]:
    """The store's errors as the caller's."""
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the webhooks can't be reached at the moment") from error
    except StoreConflictError as error:
        raise ConflictError(str(error)) from error
