"""What is due is sent: by any process, each delivery by one at a time, and again where that one dies.

The outbox is a queue of its own, beside that of jobs: a job that waits for a stranger's server would hold up those that
the ledger needs, and retries go on for longer than a job's.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from persistence.audit_records import Action
from persistence.ports import StoreConflictError, StoreUnavailableError, WebhookOutbox, WebhookStore
from persistence.webhook_records import DeliveryState, Webhook, WebhookDelivery

from .audit_fields import audit_of_webhook
from .beside import beside
from .observing import UNOBSERVED, Observer, WebhookOutcome
from .principal import Principal
from .webhook_events import rest_s
from .webhook_sending import Outcome, WebhookSender

AT_ONCE = 50
AT_ONCE_OF_ONE = 10
"""Of one organisation's: however slow its receivers are, the others' go on."""
POLL_S = 2.0
"""For so long an event of another process, or a retry, may wait beyond its time."""
LEASE_S = 60.0
REST_AT_MOST_S = 60.0
RESTING_AT_MOST = 10_000
END_S = 5.0
KEPT = timedelta(days=7)
EVENTS_KEPT = timedelta(days=40)
"""An event is the same one for so long: longer than a budget's month."""
UPKEEP_S = 3_600.0
SYSTEM = "ai-middleware"
"""Who disables a webhook that is gone, for the audit log."""

log = structlog.get_logger("webhooks")


class Deliveries:
    """Opened by `open_deliveries`. `now` is aware UTC, `clock` monotonic, in seconds."""

    def __init__(
        self,
        store: WebhookStore,
        outbox: WebhookOutbox,
        sender: WebhookSender,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        random: Callable[[], float],
        observer: Observer = UNOBSERVED,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._sender = sender
        self._now = now
        self._clock = clock
        self._random = random
        self._observer = observer
        self._woken = asyncio.Event()
        self._in_hand: dict[asyncio.Task[None], str] = {}
        self._rests: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wake(self) -> None:
        """There is something due."""
        self._woken.set()

    async def run(self) -> None:
        """While the store is away nothing is sent."""
        trouble: str | None = None
        try:
            while True:
                self._woken.clear()
                try:
                    await self._begin_all()
                    trouble = None
                except StoreUnavailableError as error:
                    if trouble is None:
                        log.warning("webhooks wait", reason=str(error))
                    trouble = str(error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._woken.wait()
        finally:
            await self._end()

    async def keep_up(self) -> None:
        """What is old is forgotten."""
        while True:
            now = self._now()
            try:
                while await self._outbox.forget(deliveries_before=now - KEPT, events_before=now - EVENTS_KEPT):
                    pass
            except StoreUnavailableError as error:
                log.warning("old deliveries are not forgotten yet", reason=str(error))
            await asyncio.sleep(UPKEEP_S)

    async def _begin_all(self) -> None:
        while len(self._in_hand) < AT_ONCE:
            now = self._now()
            claimed = await self._outbox.claim(
                now=now, until=now + timedelta(seconds=LEASE_S), busy=self._busy(), resting=self._resting()
            )
            if claimed is None:
                return
            task = asyncio.create_task(self._deliver(claimed), name="webhook")
            self._in_hand[task] = claimed.organisation
            task.add_done_callback(self._done)

    def _busy(self) -> list[str]:
        return [each for each, count in Counter(self._in_hand.values()).items() if count >= AT_ONCE_OF_ONE]

    def _resting(self) -> list[str]:
        now = self._clock()
        return [webhook_id for webhook_id, (until, _) in self._rests.items() if until > now]

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._in_hand[task]
        self.wake()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a delivery is left until its lease is over", reason=f"{type(error).__name__}: {error}")

    async def _deliver(self, delivery: WebhookDelivery) -> None:
        webhook = await self._store.by_id(delivery.organisation, delivery.webhook_id)
        if webhook is None or not webhook.enabled:
            await self._outbox.record(_given_up(delivery, "the webhook is disabled" if webhook else "it is deleted"))
            self._observer.webhook_tried(WebhookOutcome.GIVEN_UP)
            return
        outcome = await self._sender.send(webhook, delivery)
        self._note(webhook.id, outcome)
        await self._outbox.record(tried := self.after(delivery, outcome))
        self._observer.webhook_tried(_OUTCOMES[tried.state])
        if outcome.gone:
            await self._disable(webhook, outcome)

    def after(self, delivery: WebhookDelivery, outcome: Outcome) -> WebhookDelivery:
        """As it stands when its try is over."""
        now = _whole(self._now())
        tried = replace(delivery, status=outcome.status, reason=outcome.reason, attempted_at=now)
        if outcome.reason is None:
            return replace(tried, state=DeliveryState.DELIVERED, due_at=None)
        rest = None if outcome.for_good else rest_s(delivery)
        if rest is None:
            return replace(tried, state=DeliveryState.FAILED, due_at=None)
        return replace(tried, due_at=_whole(now + timedelta(seconds=rest * (0.9 + 0.2 * self._random()))))

    def _note(self, webhook_id: str, outcome: Outcome) -> None:
        """A receiver in trouble is asked less often, whatever number of deliveries wait for it. Those that fail
        together are one trouble."""
        until, before = self._rests.pop(webhook_id, (0.0, 0.5))
        if outcome.reason is None:
            return
        now = self._clock()
        rest = before if until > now else min(REST_AT_MOST_S, 2 * before)
        self._rests[webhook_id] = now + rest, rest
        if len(self._rests) > RESTING_AT_MOST:
            self._rests.popitem(last=False)

    async def _disable(self, webhook: Webhook, outcome: Outcome) -> None:
        log.info("a webhook is gone", organisation=webhook.organisation, webhook=webhook.id)
        system = Principal(SYSTEM, webhook.organisation, frozenset(), 0.0)
        disabled = replace(webhook, enabled=False, disabled_reason=outcome.reason, updated_at=_whole(self._now()))
        audit = audit_of_webhook(system, Action.WEBHOOK_UPDATE, webhook.id)
        with suppress(StoreConflictError):  # somebody has changed it meanwhile: it may be another address
            await self._store.save(disabled, expected_revision=webhook.revision, audit=audit)

    async def _end(self) -> None:
        """What is in hand has a moment left; the rest comes again when its lease is over."""
        tasks = list(self._in_hand)
        if tasks:
            await asyncio.wait(tasks, timeout=END_S)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@asynccontextmanager
async def open_deliveries(deliveries: Deliveries) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(beside("webhooks", deliveries.run))
        await stack.enter_async_context(beside("webhooks-upkeep", deliveries.keep_up))
        yield


_OUTCOMES = {
    DeliveryState.PENDING: WebhookOutcome.FAILED,
    DeliveryState.DELIVERED: WebhookOutcome.DELIVERED,
    DeliveryState.FAILED: WebhookOutcome.GIVEN_UP,
}


def _given_up(delivery: WebhookDelivery, reason: str) -> WebhookDelivery:
    return replace(delivery, state=DeliveryState.FAILED, due_at=None, reason=reason)


def _whole(time: datetime) -> datetime:
    return time.replace(microsecond=time.microsecond // 1000 * 1000)
