"""What an observer is told of deliveries: each try once, by what became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from persistence.migrations.sqlite import migrate
from persistence.sqlite.database import open_database
from persistence.sqlite.webhook_outbox import SQLiteWebhookOutbox
from persistence.sqlite.webhooks import SQLiteWebhooks
from resolvers.observing import Unobserved, WebhookOutcome
from resolvers.webhook_deliveries import Deliveries
from resolvers.webhooks import NewWebhook, WebhookChange
from tests.resolvers.receivers import Receivers, webhooks_in

from .test_webhooks import ACME, BUDGET, OTHER, URL

UNUSED, GONE = "https://unused.example/c", "https://gone.example/d"


class Listener(Unobserved):
    def __init__(self) -> None:
        self.outcomes: Counter[WebhookOutcome] = Counter()

    def webhook_tried(self, outcome: WebhookOutcome) -> None:
        self.outcomes[outcome] += 1


async def test_each_try_is_told(tmp_path: Path) -> None:
    """One receiver answers, one fails, one is gone, and one webhook is disabled before its turn."""
    migrate(tmp_path / "webhooks.db")
    async with open_database(tmp_path / "webhooks.db") as database:
        receivers, listener, clock = Receivers(), Listener(), asyncio.get_running_loop().time
        made = webhooks_in(SQLiteWebhooks(database), SQLiteWebhookOutbox(database), receivers)
        now = partial(datetime.now, UTC)
        sending = Deliveries(made.store, made.outbox, made.sender, now, clock, lambda: 0.5, listener)
        for url in (URL, OTHER, GONE):
            await made.create(ACME, NewWebhook(url, [BUDGET]))
        _, unused = await made.create(ACME, NewWebhook(UNUSED, [BUDGET]))
        receivers.will(OTHER, 503)
        receivers.will(GONE, 410)
        await made.emit("acme", BUDGET, {}, id="1")
        await made.change(ACME, unused.id, WebhookChange(enabled=False))
        task = asyncio.create_task(sending.run())
        try:
            async with asyncio.timeout(30):
                while listener.outcomes.total() < 4:  # noqa: ASYNC110  # nobody tells
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.wait([task])
    told = WebhookOutcome
    assert listener.outcomes == {told.DELIVERED: 1, told.FAILED: 1, told.GIVEN_UP: 2}
