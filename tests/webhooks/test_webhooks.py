"""Webhooks: what they may be, how events are signed, and how they get there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from persistence.migrations.sqlite import migrate
from persistence.sqlite.database import open_database
from persistence.sqlite.webhook_outbox import SQLiteWebhookOutbox
from persistence.sqlite.webhooks import SQLiteWebhooks
from persistence.webhook_records import DeliveryState, Webhook, WebhookDelivery
from providers.errors import ProviderUnavailableError
from resolvers.audit import AuditLog
from resolvers.errors import BadUserInputError, ConflictError, NotFoundError
from resolvers.principal import Principal
from resolvers.webhook_deliveries import AT_ONCE_OF_ONE, Deliveries
from resolvers.webhook_events import MAX_ATTEMPTS, RETRY_DELAYS_S, EventType, rest_s
from resolvers.webhook_sending import TIMEOUT_S, WebhookSender
from resolvers.webhooks import MAX_WAITING, MAX_WEBHOOKS, NewWebhook, WebhookChange, Webhooks
from tests.persistence.audit import MemoryAuditLog
from tests.persistence.entries import NOON
from tests.persistence.webhooks import delivery
from tests.resolvers.receivers import Received, Receivers, webhooks_in

ACME = Principal("key_1", "acme", frozenset(), 0.0)
GLOBEX = Principal("key_2", "globex", frozenset(), 0.0)
URL, OTHER = "https://hooks.example/a", "https://slow.example/b"
BUDGET, BATCH = EventType.BUDGET_THRESHOLD_REACHED, EventType.BATCH_COMPLETED


@dataclass
class Post:
    """The use cases, on a clock that a test sets, and what receivers got."""

    webhooks: Webhooks
    receivers: Receivers
    log: MemoryAuditLog
    now: list[datetime]

    async def made(self, url: str = URL, *events: str, principal: Principal = ACME) -> tuple[Receiver, Webhook]:
        secret, webhook = await self.webhooks.create(principal, NewWebhook(url, events or (BUDGET,)))
        return Receiver(secret), webhook

    async def emitted(self, name: str = "1", kind: EventType = BUDGET, organisation: str = "acme") -> bool:
        return await self.webhooks.emit(organisation, kind, {"spent": "é 8.5"}, id=name)

    async def deliveries(self, webhook: Webhook, principal: Principal = ACME) -> tuple[WebhookDelivery, ...]:
        page = await self.webhooks.deliveries(principal, webhook.id, first=100, after=None)
        return page.deliveries

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.webhooks.sending.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def settled(self, webhook: Webhook, principal: Principal = ACME) -> tuple[WebhookDelivery, ...]:
        """Its deliveries when none is on its way."""

        async def over() -> bool:
            return all(each.state is not DeliveryState.PENDING for each in await self.deliveries(webhook, principal))

        await until(over)
        return await self.deliveries(webhook, principal)


@pytest.fixture
async def post(tmp_path: Path) -> AsyncIterator[Post]:
    migrate(tmp_path / "webhooks.db")
    async with open_database(tmp_path / "webhooks.db") as database:
        receivers, now = Receivers(), [datetime.now(UTC).replace(microsecond=0)]
        made = webhooks_in(SQLiteWebhooks(database), SQLiteWebhookOutbox(database), receivers)
        sender = WebhookSender(receivers, made.sealing, lambda: now[0])
        sending = Deliveries(made.store, made.outbox, sender, lambda: now[0], lambda: now[0].timestamp(), lambda: 0.5)
        webhooks = replace(made, sender=sender, sending=sending, now=lambda: now[0])
        yield Post(webhooks, receivers, MemoryAuditLog(), now)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


async def is_disabled(post: Post, webhook: Webhook) -> bool:
    return not (await post.webhooks.get(ACME, webhook.id)).enabled


async def any_failed(post: Post, webhook: Webhook) -> bool:
    return any(each.reason for each in await post.deliveries(webhook))


async def none_left(post: Post, webhook: Webhook) -> bool:
    return not await post.deliveries(webhook)


def verified(receiver: Receiver, received: Received) -> Any:
    """By the library that receivers use."""
    return receiver.verify(received.body, dict(received.headers))


async def test_a_refused_address_is_not_kept(post: Post) -> None:
    _, webhook = await post.made()
    for attempt in (post.made("https://10.0.0.1/"), post.webhooks.change(ACME, webhook.id, WebhookChange("http://a/"))):
        with pytest.raises(BadUserInputError):
            await attempt
    assert [each.url for each in await post.webhooks.listed(ACME)] == [URL]


async def test_a_secret_is_told_once_and_kept_sealed(post: Post) -> None:
    secret, webhook = await post.webhooks.create(ACME, NewWebhook(URL, [BUDGET, BATCH, BUDGET], "ours"))
    assert secret.startswith("whsec_")
    assert secret[6:] not in str(await post.webhooks.listed(ACME))
    assert (webhook.events, webhook.description) == ((BUDGET, BATCH), "ours")
    for bad in (NewWebhook(URL, []), NewWebhook(URL, [BUDGET], "x" * 201), NewWebhook(URL, [BUDGET], "a\nb")):
        with pytest.raises(BadUserInputError):
            await post.webhooks.create(ACME, bad)


async def test_an_organisation_has_so_many_and_sees_its_own_alone(post: Post) -> None:
    made = [(await post.made())[1] for _ in range(MAX_WEBHOOKS)]
    with pytest.raises(ConflictError):
        await post.made()
    await post.made(principal=GLOBEX)
    for webhook_id in (made[0].id, "whk_" + "0" * 32, "nonsense"):
        for attempt in (
            post.webhooks.get(GLOBEX, webhook_id),
            post.webhooks.delete(GLOBEX, webhook_id),
            post.webhooks.change(GLOBEX, webhook_id, WebhookChange(enabled=False)),
            post.webhooks.rotate_secret(GLOBEX, webhook_id, overlap_s=1),
            post.webhooks.deliveries(GLOBEX, webhook_id, first=1, after=None),
            post.webhooks.test(GLOBEX, AuditLog(post.log), webhook_id),
        ):
            with pytest.raises(NotFoundError):
                await attempt
    await post.webhooks.delete(ACME, made[0].id)
    assert len(await post.webhooks.listed(ACME)) == MAX_WEBHOOKS - 1


async def test_an_event_arrives_signed_at_whom_it_is_for(post: Post) -> None:
    receiver, webhook = await post.made()
    for url, event, principal in ((OTHER, BATCH, ACME), (OTHER, BUDGET, GLOBEX)):
        await post.made(url, event, principal=principal)
    async with post.at_work():
        assert await post.emitted()
        (done,) = await post.settled(webhook)
    (received,) = post.receivers.received
    assert received.url == URL
    told = verified(receiver, received)
    assert told == {"type": BUDGET, "timestamp": post.now[0].isoformat(), "data": {"spent": "é 8.5"}}
    assert received.headers["webhook-id"] == done.event_id
    assert received.headers["content-type"] == "application/json"
    assert (done.state, done.status, done.attempts, done.due_at) == (DeliveryState.DELIVERED, 204, 1, None)
    with pytest.raises(WebhookVerificationError):
        verified(receiver, replace(received, body=received.body.replace(b"8.5", b"9.5")))
    with pytest.raises(WebhookVerificationError):
        verified((await post.made())[0], received)


async def test_the_same_event_is_emitted_once(post: Post) -> None:
    _, webhook = await post.made()
    emitted = await asyncio.gather(*(post.emitted() for _ in range(5)))
    assert sorted(emitted) == [False] * 4 + [True]
    assert await post.emitted("2")
    assert await post.emitted(kind=BATCH)
    assert await post.emitted(organisation="globex")
    assert len(await post.deliveries(webhook)) == 2
    with pytest.raises(ValueError, match="bytes"):
        await post.webhooks.emit("acme", BUDGET, {"x": "y" * 70_000}, id="3")


async def test_while_a_secret_is_rotated_either_verifies(post: Post) -> None:
    old, webhook = await post.made()
    secret, rotated = await post.webhooks.rotate_secret(ACME, webhook.id, overlap_s=60)
    new = Receiver(secret)
    assert (rotated.former_until, rotated.revision) == (post.now[0] + timedelta(seconds=60), 2)
    async with post.at_work():
        await post.emitted("1")
        await post.settled(webhook)
        for receiver in (old, new):
            verified(receiver, post.receivers.received[0])
        post.now[0] += timedelta(seconds=60)
        await post.emitted("2")
        await post.settled(webhook)
    verified(new, post.receivers.received[1])
    with pytest.raises(WebhookVerificationError):
        verified(old, post.receivers.received[1])
    _, at_once = await post.webhooks.rotate_secret(ACME, webhook.id, overlap_s=0)
    assert (at_once.former, at_once.former_until) == (None, None)
    with pytest.raises(BadUserInputError):
        await post.webhooks.rotate_secret(ACME, webhook.id, overlap_s=-1)


async def test_what_fails_is_tried_again_later_and_given_up_in_the_end(post: Post) -> None:
    _, webhook = await post.made()
    post.receivers.will(URL, 500, 302, ProviderUnavailableError("can't connect", provider="webhook"), *[503] * 20)
    reasons = ["HTTP 500", "HTTP 302: redirects are not followed", "can't connect", *["HTTP 503"] * 7]
    await post.emitted()
    until = post.now[0] + timedelta(seconds=60)
    tried = []
    for _ in range(MAX_ATTEMPTS):
        claimed = await post.webhooks.outbox.claim(now=post.now[0], until=until, busy=(), resting=())
        assert claimed is not None
        after = post.webhooks.sending.after(claimed, await post.webhooks.sender.send(webhook, claimed))
        assert await post.webhooks.outbox.record(after)
        tried.append(after)
        if after.due_at is not None:
            too_early = after.due_at - timedelta(milliseconds=1)
            assert await post.webhooks.outbox.claim(now=too_early, until=until, busy=(), resting=()) is None
            post.now[0] = after.due_at
    assert [each.reason for each in tried] == reasons
    assert [each.attempts for each in tried] == list(range(1, MAX_ATTEMPTS + 1))
    assert (tried[-1].state, tried[-1].due_at) == (DeliveryState.FAILED, None)
    assert [rest_s(delivery(attempts=n, attempts_at_most=MAX_ATTEMPTS)) for n in range(1, 11)] == [
        *RETRY_DELAYS_S,
        None,
    ]

    again = await post.webhooks.redeliver(ACME, AuditLog(post.log), tried[-1].id)
    assert (again.state, again.attempts) == (DeliveryState.PENDING, MAX_ATTEMPTS)
    assert [each.action for each in post.log.events] == ["webhook.redeliver"]
    with pytest.raises(ConflictError):
        await post.webhooks.redeliver(ACME, AuditLog(post.log), again.id)
    with pytest.raises(NotFoundError):
        await post.webhooks.redeliver(GLOBEX, AuditLog(post.log), again.id)
    post.receivers.answers.clear()
    async with post.at_work():
        (done,) = await post.settled(webhook)
    assert (done.state, done.attempts, done.event_id) == (DeliveryState.DELIVERED, MAX_ATTEMPTS + 1, tried[0].event_id)


async def test_a_receiver_that_is_gone_is_disabled_and_one_at_no_public_address_is_given_up(post: Post) -> None:
    _, gone = await post.made()
    _, inside = await post.made(OTHER)
    refused = ProviderUnavailableError("not a public address", provider="webhook", sent=False, retryable=False)
    post.receivers.will(URL, 410)
    post.receivers.will(OTHER, refused)
    async with post.at_work():
        await post.emitted()
        (one,), (other,) = await post.settled(gone), await post.settled(inside)
        await until(lambda: is_disabled(post, gone))
    disabled = await post.webhooks.get(ACME, gone.id)
    assert (one.state, one.status) == (DeliveryState.FAILED, 410)
    assert (other.state, other.attempts, other.reason) == (DeliveryState.FAILED, 1, "not a public address")
    assert disabled.disabled_reason == "HTTP 410: the receiver wants no more events"
    assert (await post.webhooks.get(ACME, inside.id)).enabled
    with pytest.raises(ConflictError):
        await post.webhooks.redeliver(ACME, AuditLog(post.log), one.id)
    enabled = await post.webhooks.change(ACME, gone.id, WebhookChange(enabled=True))
    assert (enabled.enabled, enabled.disabled_reason) == (True, None)


async def test_what_waits_for_a_webhook_that_is_disabled_or_deleted_is_given_up(post: Post) -> None:
    _, disabled = await post.made()
    _, deleted = await post.made(OTHER)
    await post.emitted()
    await post.webhooks.change(ACME, disabled.id, WebhookChange(enabled=False))
    await post.webhooks.delete(ACME, deleted.id)
    async with post.at_work():
        (one,) = await post.settled(disabled)
    assert (one.state, one.reason) == (DeliveryState.FAILED, "the webhook is disabled")
    assert post.receivers.received == []
    await post.emitted("2")
    assert len(await post.deliveries(disabled)) == 1


async def test_receivers_that_never_answer_keep_nobody_else_from_theirs(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resolvers.webhook_sending.TIMEOUT_S", 0.5)
    _, slow = await post.made(OTHER)
    _, quick = await post.made(URL, principal=GLOBEX)
    post.receivers.will(OTHER, *[None] * 100)
    for number in range(30):
        await post.emitted(str(number))
    await post.emitted(organisation="globex")
    async with post.at_work():
        await post.settled(quick, GLOBEX)
        waiting = [each for each in await post.deliveries(slow) if each.attempts == 0]
        assert len(waiting) == 30 - AT_ONCE_OF_ONE
        await until(lambda: any_failed(post, slow))
    assert post.receivers.most_at_once <= AT_ONCE_OF_ONE + 1
    assert post.receivers.at_once == 0
    reasons = {each.reason for each in await post.deliveries(slow)}
    assert reasons == {None, "no answer within 0.5 s"}
    assert TIMEOUT_S == 10


async def test_a_webhook_in_trouble_rests(post: Post) -> None:
    """Whatever waits for it: what was under way when it failed is all, until its rest is over. Others' are sent."""
    _, failing = await post.made(OTHER)
    _, other = await post.made(URL, BATCH)
    post.receivers.will(OTHER, *[500] * 30)
    for number in range(30):
        await post.emitted(str(number))

    async def tried() -> int:
        return len([each for each in await post.deliveries(failing) if each.status])

    async def more() -> bool:
        return await tried() > before

    async with post.at_work():
        await until(lambda: any_failed(post, failing))
        await post.emitted(kind=BATCH)
        await post.settled(other)
        before = await tried()
        assert 1 <= before <= AT_ONCE_OF_ONE
        post.now[0] += timedelta(seconds=1)
        post.webhooks.sending.wake()
        await until(more)


async def test_so_many_wait_for_one_webhook_at_most(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolvers.webhooks.MAX_WAITING", 2)
    _, webhook = await post.made()
    for number in range(4):
        await post.emitted(str(number))
    states = [(each.state, each.reason) for each in reversed(await post.deliveries(webhook))]
    given_up = (DeliveryState.FAILED, "2 deliveries wait for this webhook already")
    assert states == [(DeliveryState.PENDING, None)] * 2 + [given_up] * 2
    assert MAX_WAITING == 1_000


async def test_a_test_is_sent_at_once_and_once(post: Post) -> None:
    receiver, webhook = await post.made()
    await post.webhooks.change(ACME, webhook.id, WebhookChange(enabled=False))
    post.receivers.will(URL, 204, 500)
    done = await post.webhooks.test(ACME, AuditLog(post.log), webhook.id)
    failed = await post.webhooks.test(ACME, AuditLog(post.log), webhook.id)
    assert (done.state, done.status) == (DeliveryState.DELIVERED, 204)
    assert (failed.state, failed.status, failed.attempts) == (DeliveryState.FAILED, 500, 1)
    assert verified(receiver, post.receivers.received[0])["type"] == "webhook.test"
    assert await post.deliveries(webhook) == (failed, done)
    assert [each.action for each in post.log.events] == ["webhook.test"] * 2


async def test_a_secret_that_does_not_open_is_told(post: Post) -> None:
    _, webhook = await post.made()
    outcome = await post.webhooks.sender.send(replace(webhook, organisation="globex"), delivery())
    assert (outcome.reason, outcome.for_good) == ("its secret can't be opened: rotate it", True)
    assert post.receivers.received == []


async def test_what_is_old_is_forgotten(post: Post) -> None:
    _, webhook = await post.made()
    async with post.at_work():
        await post.emitted()
        await post.settled(webhook)
    post.now[0] += timedelta(days=8)
    keeping = asyncio.create_task(post.webhooks.sending.keep_up())
    await until(lambda: none_left(post, webhook))
    keeping.cancel()
    await asyncio.wait([keeping])
    assert not await post.emitted(), "the event is the same one still"


async def test_pages_and_changes_that_are_refused(post: Post) -> None:
    _, webhook = await post.made()
    for number in range(3):
        await post.emitted(str(number))
    page = await post.webhooks.deliveries(ACME, webhook.id, first=2, after=None)
    rest = await post.webhooks.deliveries(ACME, webhook.id, first=2, after=page.deliveries[-1].id)
    assert (len(page.deliveries), page.more, len(rest.deliveries), rest.more) == (2, True, 1, False)
    for first, after in ((0, None), (101, None), (1, "nonsense")):
        with pytest.raises(BadUserInputError):
            await post.webhooks.deliveries(ACME, webhook.id, first=first, after=after)
    with pytest.raises(ConflictError):
        await post.webhooks.change(ACME, webhook.id, WebhookChange(enabled=False), expected_revision=7)
    with pytest.raises(NotFoundError):
        await post.webhooks.redeliver(ACME, AuditLog(post.log), "nonsense")
    assert orjson.loads(page.deliveries[0].body)["type"] == BUDGET
    assert page.deliveries[0].created_at > NOON


async def test_an_event_may_be_for_one_webhook_alone(post: Post) -> None:
    """Whatever it asks for; and it is nobody's where that one is disabled, or another organisation's."""
    (_, named), (_, other) = await post.made(URL, BUDGET), await post.made(OTHER, BATCH)
    _, foreign = await post.made(URL, BATCH, principal=GLOBEX)
    for number, only in enumerate((named.id, foreign.id)):
        await post.webhooks.emit("acme", BATCH, {}, id=str(number), only=only)
    await post.webhooks.change(ACME, named.id, WebhookChange(enabled=False))
    await post.webhooks.emit("acme", BATCH, {}, id="disabled", only=named.id)
    assert [each.type for each in await post.deliveries(named)] == [BATCH]
    assert await post.deliveries(other) == ()
    assert await post.deliveries(foreign, GLOBEX) == ()
