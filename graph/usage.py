"""What the organisation has used: sums over the ledger."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import strawberry

from graph.completions.inputs import aware
from graph.context import GraphInfo
from graph.inputs import planned
from graph.scalars import BigInt
from graph.scopes import Guarded
from resolvers import history
from resolvers.principal import Scope


@planned
@strawberry.input(description="What to sum up.")
class UsageInput:
    since: datetime = strawberry.field(description="From this time on.")
    until: datetime = strawberry.field(description="Up to, and without, this time.")


@strawberry.type(description="Sums over ledger entries.")
class UsageTotals:
    completions: BigInt = strawberry.field(description="Completions with at least one attempt.")
    attempts: BigInt = strawberry.field(description="Calls to vendors.")
    failed_attempts: BigInt = strawberry.field(description="Of the attempts: those that failed.")
    input_tokens: BigInt = strawberry.field(description="Tokens read, cached tokens included.")
    output_tokens: BigInt = strawberry.field(description="Tokens written, reasoning included.")
    cached_input_tokens: BigInt = strawberry.field(description="Of the input: read from a vendor's prompt cache.")
    cache_write_tokens: BigInt = strawberry.field(description="Of the input: written to a vendor's prompt cache.")
    reasoning_tokens: BigInt = strawberry.field(description="Of the output: spent on reasoning.")
    cost: Decimal = strawberry.field(description="USD, exact, of the entries that have a price.")
    unpriced: BigInt = strawberry.field(description="Entries whose cost is unknown, and is not in `cost`.")
    estimated: BigInt = strawberry.field(description="Entries whose tokens are estimated.")


@strawberry.type(description="Usage of the organisation.")
class UsageReport:
    since: datetime = strawberry.field(description="The range's start, UTC.")
    until: datetime = strawberry.field(description="The range's end, exclusive, UTC.")
    totals: UsageTotals = strawberry.field(description="Sums over the whole range.")


Input = Annotated[UsageInput, strawberry.argument(description="What to sum up.")]


@strawberry.type
class UsageQueries:
    @strawberry.field(
        description="What the organisation used within a range of time.",
        extensions=[Guarded(Scope.USAGE_READ)],
    )
    async def usage(self, info: GraphInfo, input: Input) -> UsageReport | None:  # noqa: A002  # the argument's name
        context = info.context
        since, until = aware(input.since, ("input", "since")), aware(input.until, ("input", "until"))
        assert since is not None  # noqa: S101  # required by the schema
        assert until is not None  # noqa: S101  # required by the schema
        totals = await history.usage(context.services.ledger, context.principal, since=since, until=until)
        return UsageReport(
            since=since,
            until=until,
            totals=UsageTotals(
                completions=BigInt(totals.completions),
                attempts=BigInt(totals.attempts),
                failed_attempts=BigInt(totals.failed_attempts),
                input_tokens=BigInt(totals.input_tokens),
                output_tokens=BigInt(totals.output_tokens),
                cached_input_tokens=BigInt(totals.cached_input_tokens),
                cache_write_tokens=BigInt(totals.cache_write_tokens),
                reasoning_tokens=BigInt(totals.reasoning_tokens),
                cost=totals.cost,
                unpriced=BigInt(totals.unpriced),
                estimated=BigInt(totals.estimated),
            ),
        )
