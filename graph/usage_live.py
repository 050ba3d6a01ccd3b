"""Usage as it grows, for dashboards."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Self

import strawberry

from graph.context import GraphInfo
from graph.cost import ListSize
from graph.inputs import planned
from graph.scopes import Guarded
from persistence import usage_records as records
from resolvers import calendar, live_usage, usage
from resolvers.principal import Scope

from .usage_inputs import UsageBucketSize, UsageDimensionInput, UsageFilter
from .usage_types import UsageBucket, UsageGroup, UsageTotals


@planned
@strawberry.input(description="Which buckets to watch, and how to split them.")
class UsageLiveInput:
    last: int = strawberry.field(
        description="How many buckets, 1 to 200, the present one being the last. Others come as time goes on."
    )
    bucket: UsageBucketSize = strawberry.field(description="The length of the buckets.")
    time_zone: str | None = strawberry.field(
        default=strawberry.UNSET,
        description='Where buckets begin: an IANA name, such as "Europe/Berlin". UTC by default.',
    )
    group_by: list[UsageDimensionInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 5 dimensions: a group for each combination of their values."
    )
    filter: UsageFilter | None = strawberry.field(default=strawberry.UNSET, description="Which attempts count.")
    interval_ms: int | None = strawberry.field(
        default=strawberry.UNSET,
        description="From the end of one look at the ledger to the next, 1,000 to 60,000. 2,000 by default.",
    )

    def query(self) -> live_usage.LiveQuery:
        return live_usage.LiveQuery(
            last=self.last,
            bucket=calendar.Bucket[self.bucket.name],
            time_zone="UTC" if self.time_zone is None else self.time_zone,
            group_by=tuple(each.dimension() for each in self.group_by or ()),
            where=records.UsageFilter() if self.filter is None else self.filter.conditions(),
            interval_ms=live_usage.DEFAULT_INTERVAL_MS if self.interval_ms is None else self.interval_ms,
        )


@strawberry.type(description="Usage as it stands: whole values, never differences, so that a lost tick does no harm.")
class UsageTick:
    as_of: datetime = strawberry.field(description="What was booked by then is in the tick, UTC.")
    since: datetime = strawberry.field(description="The first bucket's start, UTC.")
    until: datetime = strawberry.field(description="The last bucket's end, exclusive, UTC: it lies ahead.")
    totals: UsageTotals = strawberry.field(description="Sums over all buckets.")
    buckets: list[UsageBucket] = strawberry.field(
        description="Every bucket, empty ones too, oldest first.", directives=[ListSize(assumed_size=20)]
    )
    groups: list[UsageGroup] = strawberry.field(
        description="All of it group by group, those with the most attempts first; empty without groupBy.",
        directives=[ListSize(assumed_size=20)],
    )

    @classmethod
    def of(cls, report: usage.UsageReport, group_by: Sequence[records.Dimension]) -> Self:
        return cls(
            as_of=report.as_of,
            since=report.since,
            until=report.until,
            totals=UsageTotals.of(report.totals),
            buckets=[UsageBucket.of(each) for each in report.buckets],
            groups=[UsageGroup.of(each, group_by) for each in report.groups],
        )


@lru_cache(maxsize=8)  # all listeners of a query get its tick in one moment, and percentiles take a while
def _shared(tick: live_usage.Tick, group_by: tuple[records.Dimension, ...]) -> UsageTick:
    return UsageTick.of(tick.report, group_by)


Input = Annotated[UsageLiveInput, strawberry.argument(description="Which buckets to watch, and how to split them.")]


@strawberry.type
class UsageLiveSubscriptions:
    @strawberry.subscription(
        description="What the organisation has used in the latest buckets: now, then whenever that has changed, and"
        " after 15 seconds without a change, so that `asOf` tells that all is well. A reader that is slow misses ticks,"
        " never the newest. While the ledger can't be read the subscription stays, without ticks. Those who ask for the"
        " same are served by one look at the ledger; of distinct queries an organisation has at most 20 at once"
        " (RATE_LIMITED). It ends with UNAUTHENTICATED when the token has expired.",
        extensions=[Guarded(Scope.USAGE_READ)],
    )
    async def usage_live(
        self,
        info: GraphInfo,
        input: Input,  # noqa: A002  # the argument's name
    ) -> AsyncGenerator[UsageTick, None]:
        context, query = info.context, input.query()
        async with aclosing(context.services.live_usage.ticks(context.principal, query)) as ticks:
            async for tick in ticks:
                yield _shared(tick, query.group_by)
