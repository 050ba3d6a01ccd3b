"""Receivers of webhooks that do what a test tells them, in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import IPv4Network
from typing import Any, cast

from gateway.envelopes import WEBHOOK_SECRET, Envelopes
from persistence.ports import WebhookOutbox, WebhookStore
from providers.addresses import OutboundAddresses
from providers.errors import ProviderError
from providers.ports import Transport, TransportResponse, TransportStream
from resolvers.alert_feed import AlertFeed
from resolvers.webhook_deliveries import Deliveries
from resolvers.webhook_sending import WebhookSender
from resolvers.webhooks import Webhooks


@dataclass(frozen=True)
class Received:
    url: str
    headers: Mapping[str, str]
    body: bytes


class _Answer:
    def __init__(self, status: int) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {}

    def chunks(self) -> AsyncIterator[bytes]:
        raise AssertionError("an answer counts by its status alone")

    async def read(self) -> bytes:
        raise AssertionError("an answer counts by its status alone")


@dataclass
class Receivers:
    """Implements `providers.ports.Transport`. Each call to a URL gets the next of its answers: a status, an error, or
    None for a receiver that never answers; 204 where there is none left."""

    answers: dict[str, deque[int | ProviderError | None]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def will(self, url: str, *answers: int | ProviderError | None) -> None:
        self.answers.setdefault(url, deque()).extend(answers)

    async def post(self, url: str, **_: Any) -> TransportResponse:
        raise AssertionError("an answer's body is not read")

    @asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], body: bytes | None, provider: str
    ) -> AsyncIterator[TransportStream]:
        self.received.append(Received(url, headers, body or b""))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            left = self.answers.get(url)
            answer = left.popleft() if left else 204
            if answer is None:
                await asyncio.Event().wait()
            elif isinstance(answer, ProviderError):
                raise answer
            else:
                yield _Answer(answer)
        finally:
            self.at_once -= 1


HERE = OutboundAddresses([IPv4Network("127.0.0.1")])


def webhooks_in(
    store: WebhookStore,
    outbox: WebhookOutbox,
    receivers: Transport | None = None,
    outbound: OutboundAddresses = OutboundAddresses(),  # noqa: B008  # it is frozen
) -> Webhooks:
    """Nothing is sent but what is tested: see `Deliveries`."""
    now, sealing = partial(datetime.now, UTC), Envelopes([b"m" * 32], WEBHOOK_SECRET)
    sender = WebhookSender(receivers or Receivers(), sealing, now)
    sending = Deliveries(store, outbox, sender, now, asyncio.get_running_loop().time, lambda: 0.5)
    return Webhooks(store, outbox, sender, sending, sealing, outbound, now)


def telling_nobody() -> dict[str, Any]:
    """The services that tell of things, where nobody asks for any. Tests of them bring real stores."""
    webhooks = webhooks_in(cast("WebhookStore", None), cast("WebhookOutbox", None))
    return {"webhooks": webhooks, "alerts": AlertFeed(partial(datetime.now, UTC), None)}
