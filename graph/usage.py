"""What the organisation has used: sums over the ledger."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from graph.context import GraphInfo
from graph.cost import Cost, ListSize
from graph.scopes import Guarded
from resolvers import usage
from resolvers.principal import Scope

from .usage_inputs import UsageInput
from .usage_types import UsageBucket, UsageGroup, UsageTotals


@strawberry.type(description="Usage of the organisation.")
class UsageReport:
    since: datetime = strawberry.field(description="The range's start, UTC.")
    until: datetime = strawberry.field(description="The range's end, exclusive, UTC.")
    as_of: datetime = strawberry.field(description="What was booked by then is in the report, UTC.")
    totals: UsageTotals = strawberry.field(description="Sums over the whole range.")
    buckets: list[UsageBucket] = strawberry.field(
        description="The range bucket by bucket, empty ones too, oldest first; no buckets where none were asked for.",
        directives=[ListSize(assumed_size=20)],
    )
    groups: list[UsageGroup] = strawberry.field(
        description="The range group by group, those with the most attempts first; empty without groupBy.",
        directives=[ListSize(assumed_size=20)],
    )


Input = Annotated[UsageInput, strawberry.argument(description="What to sum up, and how to split it.")]


@strawberry.type
class UsageQueries:
    @strawberry.field(
        description="What the organisation used within a range of time. Buckets add up to the totals, and so do groups."
        " At most 2,000 buckets times groups.",
        extensions=[Guarded(Scope.USAGE_READ)],
        directives=[Cost(weight=10)],
    )
    async def usage(self, info: GraphInfo, input: Input) -> UsageReport | None:  # noqa: A002  # the argument's name
        context = info.context
        query = input.query()
        report = await usage.report(context.services.ledger, context.principal, query)
        return UsageReport(
            since=report.since,
            until=report.until,
            as_of=report.as_of,
            totals=UsageTotals.of(report.totals),
            buckets=[UsageBucket.of(each) for each in report.buckets],
            groups=[UsageGroup.of(each, query.group_by) for each in report.groups],
        )
