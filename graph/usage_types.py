"""What a usage report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Self

import strawberry

from graph.cost import ListSize
from graph.scalars import BigInt
from persistence import usage_records as records
from persistence.histograms import Histogram, percentile
from resolvers import usage

from .usage_inputs import UsageField


@strawberry.type(description="Percentiles of a duration, each within 5 % of the exact one.")
class Percentiles:
    p50: float = strawberry.field(description="Milliseconds that half of them do not exceed.")
    p95: float = strawberry.field(description="Milliseconds that 95 % of them do not exceed.")
    p99: float = strawberry.field(description="Milliseconds that 99 % of them do not exceed.")

    @classmethod
    def of(cls, histogram: Histogram) -> Self | None:
        p50, p95, p99 = (percentile(histogram, percent) for percent in (50, 95, 99))
        return None if p50 is None or p95 is None or p99 is None else cls(p50=p50, p95=p95, p99=p99)


@strawberry.type(description="Sums over ledger entries. Those of buckets add up to the whole, and those of groups.")
class UsageTotals:
    completions: BigInt = strawberry.field(
        description="Completions, each counted where its last attempt is: so that groups add up."
    )
    attempts: BigInt = strawberry.field(description="Calls to vendors.")
    failed_attempts: BigInt = strawberry.field(description="Of the attempts: those that failed.")
    error_rate: float | None = strawberry.field(
        description="Failed attempts by attempts, 0 to 1; null where there are no attempts."
    )
    input_tokens: BigInt = strawberry.field(description="Tokens read, cached tokens included.")
    output_tokens: BigInt = strawberry.field(description="Tokens written, reasoning included.")
    cached_input_tokens: BigInt = strawberry.field(description="Of the input: read from a vendor's prompt cache.")
    cache_write_tokens: BigInt = strawberry.field(description="Of the input: written to a vendor's prompt cache.")
    reasoning_tokens: BigInt = strawberry.field(description="Of the output: spent on reasoning.")
    cost: Decimal = strawberry.field(description="USD, exact, of the entries that have a price.")
    unpriced: BigInt = strawberry.field(description="Entries whose cost is unknown, and is not in `cost`.")
    estimated: BigInt = strawberry.field(description="Entries whose tokens are estimated.")
    latency_ms: Percentiles | None = strawberry.field(
        description="How long attempts took, failed ones too; null where there are none."
    )
    time_to_first_token_ms: Percentiles | None = strawberry.field(
        description="How long attempts took to their first token; null where none was measured."
    )
    output_tokens_per_second: float | None = strawberry.field(
        description="Output tokens by the time that the attempts which wrote them took; null where there are none."
    )

    @classmethod
    def of(cls, sums: records.UsageSums) -> Self:
        return cls(
            completions=BigInt(sums.completions),
            attempts=BigInt(sums.attempts),
            failed_attempts=BigInt(sums.failed_attempts),
            error_rate=usage.error_rate(sums),
            input_tokens=BigInt(sums.input_tokens),
            output_tokens=BigInt(sums.output_tokens),
            cached_input_tokens=BigInt(sums.cached_input_tokens),
            cache_write_tokens=BigInt(sums.cache_write_tokens),
            reasoning_tokens=BigInt(sums.reasoning_tokens),
            cost=sums.cost,
            unpriced=BigInt(sums.unpriced),
            estimated=BigInt(sums.estimated),
            latency_ms=Percentiles.of(sums.latency),
            time_to_first_token_ms=Percentiles.of(sums.time_to_first_token),
            output_tokens_per_second=usage.output_tokens_per_second(sums),
        )


@strawberry.type(description="Usage within one bucket, as far as the report's range covers it.")
class UsageBucket:
    start: datetime = strawberry.field(description="The bucket's start, in the report's time zone.")
    end: datetime = strawberry.field(description="The bucket's end, exclusive, in the report's time zone.")
    totals: UsageTotals = strawberry.field(description="Sums over the bucket.")

    @classmethod
    def of(cls, bucket: usage.UsageBucket) -> Self:
        return cls(start=bucket.start, end=bucket.end, totals=UsageTotals.of(bucket.sums))


@strawberry.type(description="What a group has in common: a dimension's value.")
class UsageDimension:
    field: UsageField | None = strawberry.field(description="The field; null for a label.")
    label: str | None = strawberry.field(description="The label's name; null for a field.")
    value: str | None = strawberry.field(
        description="The value that the group's attempts have; null where they have none."
    )

    @classmethod
    def of(cls, dimension: records.Dimension, value: records.Value) -> Self:
        text = None if value is None else str(value)
        if isinstance(dimension, records.LabelName):
            return cls(field=None, label=dimension.name, value=text)
        return cls(field=UsageField(dimension.value), label=None, value=text)


@strawberry.type(description="Usage of one combination of values.")
class UsageGroup:
    other: bool = strawberry.field(description="True for the one group of everything beyond the 1,000 largest groups.")
    dimensions: list[UsageDimension] = strawberry.field(
        description="One for each of groupBy, in its order; none for the group of everything else."
    )
    totals: UsageTotals = strawberry.field(description="Sums over the whole range.")
    buckets: list[UsageBucket] = strawberry.field(
        description="The same buckets as the report's, with what this group used.",
        directives=[ListSize(assumed_size=20)],
    )

    @classmethod
    def of(cls, group: usage.UsageGroup, dimensions: Sequence[records.Dimension]) -> Self:
        values = () if group.values is None else group.values
        return cls(
            other=group.values is None,
            dimensions=[UsageDimension.of(*each) for each in zip(dimensions, values, strict=False)],
            totals=UsageTotals.of(group.sums),
            buckets=[UsageBucket.of(each) for each in group.buckets],
        )
