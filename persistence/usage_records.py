"""What is asked of the ledger for a usage report, and the sums that it answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from decimal import Context, Decimal
from enum import StrEnum
from functools import reduce
from operator import attrgetter

from .histograms import Histogram, merged

_EXACT = Context(prec=200)


class UsageField(StrEnum):
    """A field of an entry that sums are split or narrowed by."""

    PROVIDER = "provider"
    MODEL = "model"
    CONFIG = "config"
    CONFIG_VERSION = "config_version"
    PRINCIPAL = "principal"
    END_USER = "end_user"
    OUTCOME = "outcome"


@dataclass(frozen=True, slots=True)
class LabelName:
    """The label of this name, as a dimension."""

    name: str


Dimension = UsageField | LabelName

Value = str | int | None
"""Of a dimension: None where the entry has none."""


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """All conditions hold at once: a field has one of its values, and the entry has every label (name, value)."""

    fields: Mapping[UsageField, Sequence[str | int]] = field(default_factory=dict)
    labels: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class UsageSelection:
    """Spans (start inclusive, end exclusive; in order, without overlap) in which entries are summed up, split by
    `group_by`. The `max_groups` groups with the most entries, over all spans, stand for themselves; the others are
    one. `to_date`: with all that is committed, which a replica may be without."""

    spans: Sequence[tuple[datetime, datetime]]
    group_by: Sequence[Dimension] = ()
    where: UsageFilter = field(default_factory=UsageFilter)
    max_groups: int = 1
    to_date: bool = False


@dataclass(frozen=True, slots=True)
class UsageSums:
    """Sums over ledger entries. They add up: the sums of two sets of entries make those of both.

    `completions` counts the entries that are the last of their completion. Cache hits are no `attempts`. `cost` sums
    the priced entries only; `unpriced` counts the others. `written_tokens` and `writing_ms` are of the attempts that
    wrote any. Histograms are of attempts; `time_to_first_token` of those that have one. A correction adds its tokens
    and its cost, and takes what it settles from `unpriced` and `estimated`: of nothing else it is a part.
    A figure of an entry beyond 10^12, which no attempt has, counts as that.
    """

    completions: int = 0
    attempts: int = 0
    failed_attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    estimated: int = 0
    written_tokens: int = 0
    writing_ms: int = 0
    latency: Histogram = field(default_factory=dict)
    time_to_first_token: Histogram = field(default_factory=dict)

    def __add__(self, other: UsageSums) -> UsageSums:
        return UsageSums.of((self, other))

    @classmethod
    def of(cls, parts: Sequence[UsageSums]) -> UsageSums:
        """The sums of all of them together."""
        if len(parts) < 2:  # nothing to add
            return parts[0] if parts else cls()
        columns = dict(zip(_NAMES, zip(*map(_VALUES, parts), strict=True), strict=True))
        return cls(
            cost=reduce(_EXACT.add, columns.pop("cost")),
            latency=merged(columns.pop("latency")),
            time_to_first_token=merged(columns.pop("time_to_first_token")),
            **{name: sum(column) for name, column in columns.items()},
        )


_NAMES = tuple(each.name for each in fields(UsageSums))
_VALUES = attrgetter(*_NAMES)


@dataclass(frozen=True, slots=True)
class UsageCell:
    """The sums of one group in one span, given by its index. `group` has a value a dimension; None is all the groups
    beyond `max_groups`."""

    span: int
    group: tuple[Value, ...] | None
    sums: UsageSums
