"""One try to hand an event to a webhook. Whatever the receiver does, it is over within TIMEOUT_S, and its answer counts
by its status alone: the body is not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from persistence.webhook_records import Webhook, WebhookDelivery
from providers.errors import ProviderError
from providers.ports import Transport

from .provider_keys import SealedElsewhereError, Sealing
from .webhook_signature import signed_headers

TIMEOUT_S = 10.0
GONE = 410

log = structlog.get_logger("webhooks")


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status` is None where there was no answer. `reason`: what was wrong, for people; None where nothing was.
    `for_good`: another try would end the same."""

    status: int | None
    reason: str | None
    for_good: bool = False

    @property
    def gone(self) -> bool:
        """The receiver wants no more events, ever."""
        return self.status == GONE


@dataclass(frozen=True, slots=True)
class WebhookSender:
    """`transport` connects to addresses that tenants may name, and to no others. `now` is aware UTC."""

    transport: Transport
    sealing: Sealing
    now: Callable[[], datetime]

    async def send(self, webhook: Webhook, delivery: WebhookDelivery) -> Outcome:
        try:
            secrets = self._secrets(webhook)
        except SealedElsewhereError:
            log.exception("a webhook's secret doesn't open", organisation=webhook.organisation, webhook=webhook.id)
            return Outcome(None, "its secret can't be opened: rotate it", for_good=True)
        body = delivery.body.encode()
        headers = {
            "content-type": "application/json",
            **signed_headers(secrets, delivery.event_id, self.now(), body),
        }
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self.transport.stream(webhook.url, headers=headers, body=body, provider="webhook") as answer,
            ):
                return _judged(answer.status)
        except TimeoutError:
            return Outcome(None, f"no answer within {TIMEOUT_S:g} s")
        except ProviderError as error:
            return Outcome(None, error.message, for_good=not error.retryable)

    def _secrets(self, webhook: Webhook) -> list[str]:
        """The present one first."""
        sealed = [webhook.sealed]
        if webhook.former is not None and webhook.former_until is not None and self.now() < webhook.former_until:
            sealed.append(webhook.former)
        return [self.sealing.open(each, organisation=webhook.organisation, name=webhook.id) for each in sealed]


def _judged(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status, None)
    if status == GONE:
        return Outcome(status, "HTTP 410: the receiver wants no more events", for_good=True)
    if 300 <= status < 400:
        return Outcome(status, f"HTTP {status}: redirects are not followed")
    return Outcome(status, f"HTTP {status}")
