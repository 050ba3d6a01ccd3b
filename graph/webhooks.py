"""Webhooks: addresses that are told of what happens."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Self, cast

import orjson
import strawberry
from strawberry.scalars import JSON

from graph.completions.types import PageInfo
from graph.context import GraphInfo
from graph.inputs import planned
from graph.scopes import Guarded
from persistence import webhook_records as records
from resolvers import webhooks
from resolvers.principal import Scope
from resolvers.webhook_events import EventType

_URL = (
    "Where events are posted to: https:// and a public host, without user and password. http:// and internal networks "
    "are open where the operator lists networks."
)
_EVENTS = "What it is told of."
_DESCRIPTION = "For people: at most 200 characters; empty for none."
_TOLD_ONCE = (
    "What its events are signed by (`whsec_…`, https://www.standardwebhooks.com). It is told here, and never again: "
    "keep it now."
)
_DAY_S = 86_400


@strawberry.enum(description="What webhooks may be told of.")
class WebhookEventType(Enum):
    BUDGET_THRESHOLD_REACHED = strawberry.enum_value(
        "budget.threshold_reached",
        description="`budget.threshold_reached`: a USD budget is spent up to one of its `alertAt`. Once for each in "
        "each period.",
    )
    BATCH_COMPLETED = strawberry.enum_value(
        "batch.completed", description="`batch.completed`: every item of a batch has its result."
    )


@strawberry.enum(description="How a delivery stands.")
class WebhookDeliveryState(Enum):
    PENDING = strawberry.enum_value("pending", description="It is tried, or will be tried again.")
    DELIVERED = strawberry.enum_value("delivered", description="The receiver answered with a status of 200 to 299.")
    FAILED = strawberry.enum_value(
        "failed", description="It is given up; `redeliverWebhook` tries it once more from the beginning."
    )


@strawberry.type(description="An address that is told of what happens, by signed requests (Standard Webhooks).")
class Webhook:
    id: strawberry.ID = strawberry.field(description="Its id: `whk_…`.")
    url: str = strawberry.field(description="Where events are posted to.")
    events: list[WebhookEventType] = strawberry.field(description=_EVENTS)
    description: str | None = strawberry.field(description="For people.")
    enabled: bool = strawberry.field(description="Whether events are sent to it.")
    disabled_reason: str | None = strawberry.field(
        description="Why it was disabled, where nobody did: a receiver that answers 410 wants no more events."
    )
    former_secret_until: datetime | None = strawberry.field(
        description="Until then the secret before the present one signs too, UTC; null where there is none."
    )
    revision: int = strawberry.field(description="Rises with each write.")
    created_at: datetime = strawberry.field(description="When it was made, UTC.")
    created_by: str = strawberry.field(description="The subject of the token that made it.")
    updated_at: datetime = strawberry.field(description="When it was written last, UTC.")

    @classmethod
    def of(cls, webhook: records.Webhook) -> Self:
        return cls(
            id=strawberry.ID(webhook.id),
            url=webhook.url,
            events=[WebhookEventType[each.name] for each in EventType if each.value in webhook.events],
            description=webhook.description,
            enabled=webhook.enabled,
            disabled_reason=webhook.disabled_reason,
            former_secret_until=webhook.former_until,
            revision=webhook.revision,
            created_at=webhook.created_at,
            created_by=webhook.created_by,
            updated_at=webhook.updated_at,
        )


@strawberry.type(description="A webhook with a secret that has just been made.")
class WebhookWithSecret:
    secret: str = strawberry.field(description=_TOLD_ONCE)
    webhook: Webhook = strawberry.field(description="What is known of it from now on.")


@strawberry.type(description="The webhook that is gone.")
class DeletedWebhook:
    id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.type(description="An event on its way to one webhook. It is kept for seven days.")
class WebhookDelivery:
    id: strawberry.ID = strawberry.field(description="Its id: `whd_…`.")
    event_id: str = strawberry.field(description="The event's (`webhook-id`), the same for each try and each webhook.")
    type: str = strawberry.field(description="The event's type, such as `budget.threshold_reached`.")
    payload: JSON = strawberry.field(description="What is sent.")
    state: WebhookDeliveryState = strawberry.field(description="How it stands.")
    attempts: int = strawberry.field(description="How often it was tried.")
    status: int | None = strawberry.field(description="The HTTP status of the last answer; null where there was none.")
    reason: str | None = strawberry.field(description="What was wrong with the last try; null where nothing was.")
    attempted_at: datetime | None = strawberry.field(description="When it was tried last, UTC; null for never.")
    next_attempt_at: datetime | None = strawberry.field(
        description="When it is tried next, UTC, at the earliest; null where it is not."
    )
    created_at: datetime = strawberry.field(description="When the event happened, UTC.")

    @classmethod
    def of(cls, delivery: records.WebhookDelivery) -> Self:
        return cls(
            id=strawberry.ID(delivery.id),
            event_id=delivery.event_id,
            type=delivery.type,
            payload=cast("Any", orjson.loads(delivery.body)),
            state=WebhookDeliveryState(delivery.state.value),
            attempts=delivery.attempts,
            status=delivery.status,
            reason=delivery.reason,
            attempted_at=delivery.attempted_at,
            next_attempt_at=delivery.due_at,
            created_at=delivery.created_at,
        )


@strawberry.type(description="A delivery and its place in the list.")
class WebhookDeliveryEdge:
    cursor: str = strawberry.field(description="Opaque; give it as `after` to go on behind this one.")
    node: WebhookDelivery = strawberry.field(description="The delivery.")


@strawberry.type(description="A page of deliveries, newest first (Relay).")
class WebhookDeliveryConnection:
    edges: list[WebhookDeliveryEdge] = strawberry.field(description="The page.")
    nodes: list[WebhookDelivery] = strawberry.field(description="The same without cursors.")
    page_info: PageInfo = strawberry.field(description="Where the page ends.")

    @classmethod
    def of(cls, page: webhooks.DeliveryPage, after: str | None) -> Self:
        edges = [WebhookDeliveryEdge(cursor=each.id, node=WebhookDelivery.of(each)) for each in page.deliveries]
        return cls(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                has_next_page=page.more,
                has_previous_page=after is not None,
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
            ),
        )


@planned
@strawberry.input(description="A new webhook.")
class CreateWebhookInput:
    url: str = strawberry.field(description=_URL)
    events: list[WebhookEventType] = strawberry.field(description=_EVENTS)
    description: str | None = strawberry.field(default=strawberry.UNSET, description=_DESCRIPTION)
    enabled: bool | None = strawberry.field(
        default=strawberry.UNSET, description="False: nothing is sent yet. True by default."
    )


@planned
@strawberry.input(description="What is to change of a webhook; what is absent stays.")
class UpdateWebhookInput:
    id: strawberry.ID = strawberry.field(description="The webhook.")
    url: str | None = strawberry.field(default=strawberry.UNSET, description=_URL)
    events: list[WebhookEventType] | None = strawberry.field(default=strawberry.UNSET, description=_EVENTS)
    description: str | None = strawberry.field(default=strawberry.UNSET, description=_DESCRIPTION)
    enabled: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether events are sent to it. What waits for one that is not is given up.",
    )
    expected_revision: int | None = strawberry.field(
        default=strawberry.UNSET, description="CONFLICT where the webhook has another revision by now."
    )


@planned
@strawberry.input(description="Which webhook is to be gone.")
class DeleteWebhookInput:
    id: strawberry.ID = strawberry.field(description="The webhook.")


@planned
@strawberry.input(description="Which webhook gets a new secret, and for how long both sign.")
class RotateWebhookSecretInput:
    id: strawberry.ID = strawberry.field(description="The webhook.")
    overlap_seconds: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="For how long the secret before signs too, up to a week; absent: a day.",
    )


@planned
@strawberry.input(description="Which webhook is to be tried.")
class TestWebhookInput:
    id: strawberry.ID = strawberry.field(description="The webhook.")


@planned
@strawberry.input(description="What is to be sent once more.")
class RedeliverWebhookInput:
    delivery_id: strawberry.ID = strawberry.field(description="The delivery.")


WebhookId = Annotated[strawberry.ID, strawberry.argument(description="Whose deliveries.")]
First = Annotated[int, strawberry.argument(description="How many at most, 1 to 100.")]
After = Annotated[str | None, strawberry.argument(description="The cursor behind which to go on.")]
Create = Annotated[CreateWebhookInput, strawberry.argument(description="The webhook.")]
Update = Annotated[UpdateWebhookInput, strawberry.argument(description="Which webhook, and what of it.")]
Delete = Annotated[DeleteWebhookInput, strawberry.argument(description="Which webhook.")]
Rotate = Annotated[RotateWebhookSecretInput, strawberry.argument(description="Which webhook.")]
Try = Annotated[TestWebhookInput, strawberry.argument(description="Which webhook.")]
Redeliver = Annotated[RedeliverWebhookInput, strawberry.argument(description="Which delivery.")]


@strawberry.type
class WebhookQueries:
    @strawberry.field(
        description="The organisation's webhooks, the oldest first.", extensions=[Guarded(Scope.WEBHOOKS_READ)]
    )
    async def webhooks(self, info: GraphInfo) -> list[Webhook] | None:
        context = info.context
        return [Webhook.of(each) for each in await context.services.webhooks.listed(context.principal)]

    @strawberry.field(
        description="What was sent to a webhook in the last seven days, and what waits for it, newest first.",
        extensions=[Guarded(Scope.WEBHOOKS_READ)],
    )
    async def webhook_deliveries(
        self, info: GraphInfo, webhook_id: WebhookId, first: First = 50, after: After = None
    ) -> WebhookDeliveryConnection | None:
        context = info.context
        page = await context.services.webhooks.deliveries(context.principal, webhook_id, first=first, after=after)
        return WebhookDeliveryConnection.of(page, after)


@strawberry.type
class WebhookMutations:
    @strawberry.mutation(
        description="Makes a webhook, and tells its secret. CONFLICT where the organisation has 20.",
        extensions=[Guarded(Scope.WEBHOOKS_WRITE)],
    )
    async def create_webhook(
        self,
        info: GraphInfo,
        input: Create,  # noqa: A002  # the argument's name
    ) -> WebhookWithSecret | None:
        context = info.context
        asked = webhooks.NewWebhook(
            url=input.url,
            events=[EventType[each.name] for each in input.events],
            description=input.description or None,
            enabled=input.enabled is None or bool(input.enabled),
        )
        secret, made = await context.services.webhooks.create(context.principal, asked)
        return WebhookWithSecret(secret=secret, webhook=Webhook.of(made))

    @strawberry.mutation(description="Changes a webhook.", extensions=[Guarded(Scope.WEBHOOKS_WRITE)])
    async def update_webhook(
        self,
        info: GraphInfo,
        input: Update,  # noqa: A002  # the argument's name
    ) -> Webhook | None:
        context = info.context
        change = webhooks.WebhookChange(
            url=input.url,
            events=None if input.events is None else [EventType[each.name] for each in input.events],
            description=input.description,
            enabled=input.enabled,
        )
        changed = await context.services.webhooks.change(
            context.principal, input.id, change, expected_revision=input.expected_revision
        )
        return Webhook.of(changed)

    @strawberry.mutation(
        description="Gives a webhook a new secret, and tells it. For a while each request has a signature by either.",
        extensions=[Guarded(Scope.WEBHOOKS_WRITE)],
    )
    async def rotate_webhook_secret(
        self,
        info: GraphInfo,
        input: Rotate,  # noqa: A002  # the argument's name
    ) -> WebhookWithSecret | None:
        context = info.context
        overlap_s = _DAY_S if input.overlap_seconds is None else input.overlap_seconds
        secret, rotated = await context.services.webhooks.rotate_secret(
            context.principal, input.id, overlap_s=overlap_s
        )
        return WebhookWithSecret(secret=secret, webhook=Webhook.of(rotated))

    @strawberry.mutation(
        description="Sends a webhook an event of the type `webhook.test`, once and at once, also where it is disabled: "
        "what came of it. It takes 10 seconds at most.",
        extensions=[Guarded(Scope.WEBHOOKS_WRITE)],
    )
    async def test_webhook(
        self,
        info: GraphInfo,
        input: Try,  # noqa: A002  # the argument's name
    ) -> WebhookDelivery | None:
        context = info.context
        tried = await context.services.webhooks.test(context.principal, context.audit, input.id)
        return WebhookDelivery.of(tried)

    @strawberry.mutation(
        description="Sends an event once more, with its own `webhook-id`, and tries for as long as at first. CONFLICT "
        "for one that is on its way, and where the webhook is disabled.",
        extensions=[Guarded(Scope.WEBHOOKS_WRITE)],
    )
    async def redeliver_webhook(
        self,
        info: GraphInfo,
        input: Redeliver,  # noqa: A002  # the argument's name
    ) -> WebhookDelivery | None:
        context = info.context
        again = await context.services.webhooks.redeliver(context.principal, context.audit, input.delivery_id)
        return WebhookDelivery.of(again)

    @strawberry.mutation(
        description="Takes a webhook away. What is on its way to it is given up.",
        extensions=[Guarded(Scope.WEBHOOKS_WRITE)],
    )
    async def delete_webhook(
        self,
        info: GraphInfo,
        input: Delete,  # noqa: A002  # the argument's name
    ) -> DeletedWebhook | None:
        context = info.context
        await context.services.webhooks.delete(context.principal, input.id)
        return DeletedWebhook(id=input.id)
