"""Budgets that are spent up to a threshold, as it happens."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from decimal import Decimal
from typing import Self

import strawberry

from graph.context import GraphInfo
from graph.scopes import Guarded
from resolvers.budget_alerts import BudgetAlert
from resolvers.principal import Scope

from .limits import Limited, LimitMeasure


@strawberry.type(description="A USD budget is spent up to one of its thresholds.")
class LimitAlert:
    limited: Limited = strawberry.field(description="Whose calls it counts.")
    name: str | None = strawberry.field(description="The API key's id, or the model; null for the organisation.")
    measure: LimitMeasure = strawberry.field(description="Which budget: USD_A_DAY or USD_A_MONTH.")
    percent: int = strawberry.field(description="The threshold, one of the limit's `alertAt`.")
    limit: Decimal = strawberry.field(description="The budget, in USD.")
    spent: Decimal = strawberry.field(
        description="How much of it is spent, without what is reserved for calls that run."
    )
    period_begun_at: datetime = strawberry.field(description="Since when it counts, UTC.")
    period_ends_at: datetime = strawberry.field(description="When it begins anew, UTC.")

    @classmethod
    def of(cls, alert: BudgetAlert) -> Self:
        return cls(
            limited=Limited(alert.limited),
            name=alert.name or None,
            measure=LimitMeasure(alert.measure),
            percent=alert.percent,
            limit=alert.limit,
            spent=alert.spent,
            period_begun_at=alert.begun_at,
            period_ends_at=alert.ends_at,
        )


@strawberry.type
class LimitAlertSubscriptions:
    @strawberry.subscription(
        description="Each time that a USD budget of the organisation's is spent up to one of its `alertAt`, by "
        "whatever server: once for each in each period, from now on. Webhooks get the same "
        "(`budget.threshold_reached`), and miss none. It ends with UNAUTHENTICATED when the token has expired.",
        extensions=[Guarded(Scope.LIMITS_READ)],
    )
    async def limit_alerts(self, info: GraphInfo) -> AsyncGenerator[LimitAlert, None]:
        context = info.context
        async with aclosing(context.services.alerts.alerts(context.principal)) as alerts:
            async for alert in alerts:
                yield LimitAlert.of(alert)
