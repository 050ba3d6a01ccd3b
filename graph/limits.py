"""Limits and budgets: what calls may take."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Self

import strawberry

from graph.context import GraphInfo
from graph.inputs import planned
from graph.scalars import BigInt
from graph.scopes import Guarded
from persistence import limit_records as records
from resolvers.budget_alerts import thresholds
from resolvers.errors import LimitDetail
from resolvers.limit_rules import LimitState as State
from resolvers.limit_rules import NewLimits
from resolvers.principal import Scope

_API_KEY = "The id of the API key whose calls are limited; null where it is none's."
_MODEL = (
    "The model whose calls are limited, as provider/model, or provider/* for all of a provider's together. OpenRouter's"
    " routing variants (`:nitro`) count as the model too."
)
_REQUESTS = "Completions and embeddings within the last 60 seconds; retries are no others. Null for any number."
_TOKENS = "Tokens read and written within the last 60 seconds. Null for any number."
_DAY = "USD by the day of UTC. Null for any sum."
_MONTH = "USD by the month of UTC. Null for any sum."
_ALERT_AT = (
    "At how much of a USD budget an alert is sent (webhooks, `limitAlerts`): up to 10 numbers of per cent, from 1 to "
    "100. 50, 80, 90 and 100 unless they are given; none for an empty list."
)
_STREAMS = "Streams at once. Null for any number."


@strawberry.enum(description="Whose calls are counted together.")
class Limited(Enum):
    ORGANISATION = strawberry.enum_value("organisation", description="All of the organisation's.")
    API_KEY = strawberry.enum_value("api_key", description="Those by one API key, and by the tokens it has minted.")
    MODEL = strawberry.enum_value("model", description="Those to one model, or to all of one provider's.")


@strawberry.enum(description="What a limit counts.")
class LimitMeasure(Enum):
    REQUESTS = strawberry.enum_value("requests_per_minute", description="Calls of the last 60 seconds.")
    TOKENS = strawberry.enum_value("tokens_per_minute", description="Tokens of the last 60 seconds.")
    USD_A_DAY = strawberry.enum_value("usd_per_day", description="USD of this day, UTC.")
    USD_A_MONTH = strawberry.enum_value("usd_per_month", description="USD of this month, UTC.")
    STREAMS = strawberry.enum_value("streams", description="Streams at the moment.")


@strawberry.type(description="The limit that had no room for a call.")
class LimitReached:
    limited: Limited = strawberry.field(description="Whose calls it counts.")
    name: str | None = strawberry.field(description="The API key's id, or the model; null for the organisation.")
    measure: LimitMeasure = strawberry.field(description="What it counts.")
    limit: Decimal = strawberry.field(description="How much there may be: USD, or a number.")
    used: Decimal = strawberry.field(description="How much of it was used, with what was reserved for calls that ran.")
    asked: Decimal = strawberry.field(description="The most that the call might have come to.")

    @classmethod
    def of(cls, detail: LimitDetail) -> Self:
        return cls(
            limited=Limited(detail.limited),
            name=detail.name,
            measure=LimitMeasure(detail.measure),
            limit=Decimal(detail.limit),
            used=Decimal(detail.used),
            asked=Decimal(detail.asked),
        )


@strawberry.type(description="How one limit stands.")
class LimitState:
    limited: Limited = strawberry.field(description="Whose calls it counts.")
    name: str | None = strawberry.field(description="The API key's id, or the model; null for the organisation.")
    measure: LimitMeasure = strawberry.field(description="What it counts.")
    limit: Decimal = strawberry.field(description="How much there may be: USD, or a number.")
    used: Decimal = strawberry.field(
        description="How much of it is used, with what is reserved for calls that run: each holds the most that it "
        "may come to until it has ended."
    )
    left: Decimal = strawberry.field(description="How much is left.")
    ends_at: datetime | None = strawberry.field(
        description="When a budget begins anew, UTC; null for what is counted by the minute, and for streams."
    )

    @classmethod
    def of(cls, state: State) -> Self:
        return cls(
            limited=Limited(state.limited.value),
            name=state.name or None,
            measure=LimitMeasure(state.measure.value),
            limit=state.limit,
            used=state.used,
            left=state.left,
            ends_at=state.ends_at,
        )


@strawberry.type(description="The limits of an organisation, of one of its API keys, or of a model that it calls.")
class Limits:
    limited: Limited = strawberry.field(description="Whose calls are counted together.")
    name: str | None = strawberry.field(description="The API key's id, or the model; null for the organisation.")
    requests_per_minute: int | None = strawberry.field(description=_REQUESTS)
    tokens_per_minute: BigInt | None = strawberry.field(description=_TOKENS)
    usd_per_day: Decimal | None = strawberry.field(description=_DAY)
    usd_per_month: Decimal | None = strawberry.field(description=_MONTH)
    streams: int | None = strawberry.field(description=_STREAMS)
    alert_at: list[int] = strawberry.field(
        description="At how much of a USD budget an alert is sent, in per cent; empty where there is no budget."
    )
    updated_at: datetime = strawberry.field(description="When it was set, UTC.")
    updated_by: str = strawberry.field(description="The subject of the token that set it.")
    rule: strawberry.Private[records.LimitRule]

    @strawberry.field(description="How each of them stands. Null where that can't be looked at.")
    async def states(self, info: GraphInfo) -> list[LimitState] | None:
        context = info.context
        return _states(await context.services.limit_rules.states(context.principal, [self.rule]))

    @classmethod
    def of(cls, rule: records.LimitRule) -> Self:
        tokens = rule.tokens_per_minute
        return cls(
            limited=Limited(rule.limited.value),
            name=rule.name or None,
            requests_per_minute=rule.requests_per_minute,
            tokens_per_minute=None if tokens is None else BigInt(tokens),
            usd_per_day=rule.usd_per_day,
            usd_per_month=rule.usd_per_month,
            streams=rule.streams,
            alert_at=list(thresholds(rule)),
            updated_at=rule.updated_at,
            updated_by=rule.updated_by,
            rule=rule,
        )


@planned
@strawberry.input(description="Limits: of the organisation, unless an API key or a model is named.")
class SetLimitsInput:
    api_key: strawberry.ID | None = strawberry.field(default=None, description=_API_KEY)
    model: str | None = strawberry.field(default=None, description=_MODEL)
    requests_per_minute: int | None = strawberry.field(default=None, description=_REQUESTS)
    tokens_per_minute: BigInt | None = strawberry.field(default=None, description=_TOKENS)
    usd_per_day: Decimal | None = strawberry.field(default=None, description=_DAY)
    usd_per_month: Decimal | None = strawberry.field(default=None, description=_MONTH)
    streams: int | None = strawberry.field(default=None, description=_STREAMS)
    alert_at: list[int] | None = strawberry.field(default=None, description=_ALERT_AT)


@planned
@strawberry.input(description="Whose limits are to be taken away: the organisation's, unless a key or model is named.")
class RemoveLimitsInput:
    api_key: strawberry.ID | None = strawberry.field(default=None, description=_API_KEY)
    model: str | None = strawberry.field(default=None, description=_MODEL)


@strawberry.type(description="Whose limits are gone.")
class RemovedLimits:
    limited: Limited = strawberry.field(description="Whose calls were counted together.")
    name: str | None = strawberry.field(description="The API key's id, or the model; null for the organisation.")


Set = Annotated[SetLimitsInput, strawberry.argument(description="The limits, and whose they are.")]
Remove = Annotated[RemoveLimitsInput, strawberry.argument(description="Whose limits.")]


@strawberry.type
class LimitQueries:
    @strawberry.field(
        description="The limits that the organisation has set, by whose they are.",
        extensions=[Guarded(Scope.LIMITS_READ)],
    )
    async def limits(self, info: GraphInfo) -> list[Limits] | None:
        context = info.context
        return [Limits.of(rule) for rule in await context.services.limit_rules.listed(context.principal)]


@strawberry.type
class LimitMutations:
    @strawberry.mutation(
        description="Sets limits, in the place of all that were set for the same before. Every call counts against "
        "all limits that apply to it, and is refused where one has no room for what it may come to. Under a limit of "
        "tokens or USD a call needs `maxTokens` where the model's own limit is not known; under one of USD a price, "
        "and no `providerOptions`.",
        extensions=[Guarded(Scope.LIMITS_WRITE)],
    )
    async def set_limits(
        self,
        info: GraphInfo,
        input: Set,  # noqa: A002  # the argument's name
    ) -> Limits | None:
        context = info.context
        asked = NewLimits(
            api_key=input.api_key,
            model=input.model,
            requests_per_minute=input.requests_per_minute,
            tokens_per_minute=input.tokens_per_minute,
            usd_per_day=input.usd_per_day,
            usd_per_month=input.usd_per_month,
            streams=input.streams,
            alert_at=input.alert_at,
        )
        return Limits.of(await context.services.limit_rules.put(context.principal, asked))

    @strawberry.mutation(description="Takes limits away.", extensions=[Guarded(Scope.LIMITS_WRITE)])
    async def remove_limits(
        self,
        info: GraphInfo,
        input: Remove,  # noqa: A002  # the argument's name
    ) -> RemovedLimits | None:
        context = info.context
        limited, name = await context.services.limit_rules.remove(context.principal, input.api_key, input.model)
        return RemovedLimits(limited=Limited(limited.value), name=name or None)


def _states(states: Sequence[State]) -> list[LimitState]:
    return [LimitState.of(state) for state in states]
