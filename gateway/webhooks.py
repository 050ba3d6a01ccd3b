"""Puts together what tells organisations of what happens: webhooks, and alerts of budgets."""

from __future__ import annotations

import random
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from providers.addresses import OutboundAddresses
from providers.http import open_transport
from resolvers.alert_feed import AlertFeed, open_alert_feed
from resolvers.budget_alerts import BudgetAlert, open_budget_alerts
from resolvers.limits import Limiter
from resolvers.observing import Observer
from resolvers.webhook_deliveries import Deliveries, open_deliveries
from resolvers.webhook_events import EventType
from resolvers.webhook_sending import TIMEOUT_S, WebhookSender
from resolvers.webhooks import Webhooks

from .envelopes import WEBHOOK_SECRET, Envelopes
from .keys import DeploymentKeys
from .settings import Settings, SettingsError
from .stores import Documents

if TYPE_CHECKING:
    from persistence.redis.server import RedisServer

MAX_CONNECTIONS = 100


async def open_telling(
    settings: Settings,
    keys: DeploymentKeys,
    documents: Documents,
    limits: Limiter,
    redis: RedisServer | None,
    observer: Observer,
    stack: AsyncExitStack,
) -> tuple[Webhooks, AlertFeed]:
    """Raises SettingsError."""
    webhooks = await _open_webhooks(settings, keys, documents, observer, stack)
    feed = await stack.enter_async_context(open_alert_feed(_now, None if redis is None else redis.events))

    async def tell(alert: BudgetAlert) -> None:
        if await webhooks.emit(alert.organisation, EventType.BUDGET_THRESHOLD_REACHED, alert.data(), id=alert.id):
            observer.budget_reached(alert.measure, alert.percent)
            await feed.publish(alert)

    alerts = await stack.enter_async_context(open_budget_alerts(tell))
    limits.touched = alerts.touched
    return webhooks, feed


async def _open_webhooks(
    settings: Settings, keys: DeploymentKeys, documents: Documents, observer: Observer, stack: AsyncExitStack
) -> Webhooks:
    """By a transport that goes to no address that is not allowed."""
    outbound = OutboundAddresses(settings.OUTBOUND_ALLOWED_NETWORKS)
    opening = open_transport(max_connections=MAX_CONNECTIONS, idle_timeout_s=TIMEOUT_S, outbound=outbound)
    try:
        transport = await stack.enter_async_context(opening)
    except ValueError as error:  # the proxy variables of the environment
        raise SettingsError(str(error)) from None
    sealing = Envelopes(keys.masters, WEBHOOK_SECRET)
    sender = WebhookSender(transport, sealing, _now)
    outbox, clock = documents.outbox, time.monotonic
    sending = Deliveries(documents.webhooks, outbox, sender, _now, clock, random.random, observer)
    await stack.enter_async_context(open_deliveries(sending))
    return Webhooks(documents.webhooks, outbox, sender, sending, sealing, outbound, _now)


def _now() -> datetime:
    return datetime.now(UTC)
