"""What usage is asked with, and its translation to the use case's query."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import Enum

import strawberry

from graph.completions.inputs import LabelInput, aware
from graph.completions.types import Outcome
from graph.inputs import planned
from persistence import records as ledger
from persistence import usage_records as records
from resolvers import calendar, usage
from resolvers.errors import BadUserInputError


@strawberry.enum(description="How long a bucket is, on the clock and the calendar of the report's time zone.")
class UsageBucketSize(Enum):
    MINUTE = strawberry.enum_value("minute", description="A minute.")
    HOUR = strawberry.enum_value(
        "hour", description="An hour of the local clock; where a change of the clock cuts one short, less."
    )
    DAY = strawberry.enum_value("day", description="A day: 23 or 25 hours where the clock is changed by one.")
    WEEK = strawberry.enum_value("week", description="A week from Monday on, as ISO 8601 has it.")
    MONTH = strawberry.enum_value("month", description="A month of the calendar.")


@strawberry.enum(description="What an attempt has, and usage may be split by.")
class UsageField(Enum):
    PROVIDER = strawberry.enum_value("provider", description="The provider's name.")
    MODEL = strawberry.enum_value("model", description="The vendor's own model name.")
    CONFIG = strawberry.enum_value("config", description="The slug of the config that was used.")
    CONFIG_VERSION = strawberry.enum_value("config_version", description="The config's version, a number.")
    PRINCIPAL = strawberry.enum_value("principal", description="Who asked: the API key, or the token's subject.")
    END_USER = strawberry.enum_value("end_user", description="The caller's own user, as the completion named it.")
    OUTCOME = strawberry.enum_value("outcome", description="How the attempt ended, as in Outcome.")


@planned
@strawberry.input(one_of=True, description='A dimension: a field, or a label by its name: `{ label: "team" }`.')
class UsageDimensionInput:
    field: UsageField | None = strawberry.field(default=strawberry.UNSET, description="A field of every attempt.")
    label: str | None = strawberry.field(default=strawberry.UNSET, description="The name of a label.")

    def dimension(self) -> records.Dimension:
        if self.field is not None:
            return records.UsageField[self.field.name]
        return records.LabelName(self.label or "")


@planned
@strawberry.input(
    description="Which attempts count. All given conditions hold at once; of a list's values, an attempt has one. "
    "At most 100 values a list."
)
class UsageFilter:
    provider: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Providers' names.")
    model: list[str] | None = strawberry.field(default=strawberry.UNSET, description="The vendors' own model names.")
    config: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Slugs of configs.")
    config_version: list[int] | None = strawberry.field(default=strawberry.UNSET, description="Versions of configs.")
    principal: list[str] | None = strawberry.field(default=strawberry.UNSET, description="Who asked.")
    end_user: list[str] | None = strawberry.field(default=strawberry.UNSET, description="The caller's own users.")
    outcome: list[Outcome] | None = strawberry.field(default=strawberry.UNSET, description="How the attempt ended.")
    labels: list[LabelInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Labels: the attempt has all of them. At most 10."
    )

    def conditions(self) -> records.UsageFilter:
        given: dict[records.UsageField, Sequence[str | int] | None] = {
            records.UsageField.PROVIDER: self.provider,
            records.UsageField.MODEL: self.model,
            records.UsageField.CONFIG: self.config,
            records.UsageField.CONFIG_VERSION: self.config_version,
            records.UsageField.PRINCIPAL: self.principal,
            records.UsageField.END_USER: self.end_user,
            records.UsageField.OUTCOME: None
            if self.outcome is None
            else [ledger.Outcome[each.name] for each in self.outcome],
        }
        return records.UsageFilter(
            fields={field: values for field, values in given.items() if values is not None},
            labels=[(label.name, label.value) for label in self.labels or ()],
        )


@planned
@strawberry.input(description="What to sum up, and how to split it.")
class UsageInput:
    since: datetime = strawberry.field(description="From this time on.")
    until: datetime = strawberry.field(description="Up to, and without, this time.")
    bucket: UsageBucketSize | None = strawberry.field(
        default=strawberry.UNSET, description="The length of the buckets; without it there are none."
    )
    time_zone: str | None = strawberry.field(
        default=strawberry.UNSET,
        description='Where buckets begin: an IANA name, such as "Europe/Berlin". UTC by default.',
    )
    group_by: list[UsageDimensionInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Up to 5 dimensions: a group for each combination of their values."
    )
    filter: UsageFilter | None = strawberry.field(default=strawberry.UNSET, description="Which attempts count.")

    def query(self) -> usage.UsageQuery:
        """Raises BadUserInputError."""
        return usage.UsageQuery(
            since=_time(self.since, "since"),
            until=_time(self.until, "until"),
            bucket=None if self.bucket is None else calendar.Bucket[self.bucket.name],
            time_zone="UTC" if self.time_zone is None else self.time_zone,
            group_by=tuple(each.dimension() for each in self.group_by or ()),
            where=records.UsageFilter() if self.filter is None else self.filter.conditions(),
        )


def _time(given: datetime, name: str) -> datetime:
    time = aware(given, ("input", name))
    if time is None:
        raise BadUserInputError("a time is needed", path=("input", name))
    return time
