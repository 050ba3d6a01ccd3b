"""What an organisation used: sums over its ledger, by time and by dimension."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from itertools import pairwise
from zoneinfo import ZoneInfo

from pydantic.alias_generators import to_camel

from persistence.usage_records import (
    Dimension,
    LabelName,
    UsageCell,
    UsageFilter,
    UsageSelection,
    UsageSums,
    Value,
)

from .calendar import Bucket, boundaries
from .errors import BadUserInputError
from .ledger import Ledger
from .principal import Principal

MAX_CELLS = 2_000
"""Buckets times groups of one report."""

MAX_GROUPS = 1_000
MAX_DIMENSIONS = 5
MAX_LABELS = 10
MAX_VALUES = 100
"""Of one field, in a filter."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Entries with since <= time < until. `bucket` None: no series. `time_zone`: an IANA name."""

    since: datetime
    until: datetime
    bucket: Bucket | None = None
    time_zone: str = "UTC"
    group_by: tuple[Dimension, ...] = ()
    where: UsageFilter = field(default_factory=UsageFilter)


@dataclass(frozen=True, slots=True)
class UsageBucket:
    """`start` and `end` are the bucket's own, in the report's time zone; the range may begin or end within it."""

    start: datetime
    end: datetime
    sums: UsageSums


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """`values`: one a dimension, in the order asked; None is everything beyond the MAX_GROUPS largest groups."""

    values: tuple[Value, ...] | None
    sums: UsageSums
    buckets: tuple[UsageBucket, ...]


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Groups with the most attempts first; buckets by time, empty ones too. `as_of`: entries booked by then are in."""

    since: datetime
    until: datetime
    as_of: datetime
    totals: UsageSums
    buckets: tuple[UsageBucket, ...]
    groups: tuple[UsageGroup, ...]


async def report(ledger: Ledger, principal: Principal, query: UsageQuery) -> UsageReport:
    """Raises BadUserInputError, its path from ("input", …), and ServiceUnavailableError."""
    _check(query)
    starts = _starts(query)
    allowed = min(MAX_GROUPS, MAX_CELLS // max(1, len(starts) - 1))
    # In UTC: of two times of one zone Python compares the wall clock, which shows some hours twice.
    edges = [edge.astimezone(UTC) for edge in (query.since, *starts[1:-1], query.until)]
    as_of = datetime.now(UTC)
    selection = UsageSelection(tuple(pairwise(edges)), query.group_by, query.where, allowed)
    cells = await ledger.usage(principal.organisation, selection)
    if allowed < MAX_GROUPS and any(cell.group is None for cell in cells):
        raise BadUserInputError(
            f"buckets times groups are at most {MAX_CELLS}, and with {len(starts) - 1} buckets there are more than"
            f" {allowed} groups: ask for longer buckets, a shorter range, or fewer groups",
            path=("input", "bucket"),
        )
    buckets = _series(starts, cells)
    return UsageReport(
        since=query.since,
        until=query.until,
        as_of=as_of,
        totals=_total(buckets or cells),
        buckets=buckets,
        groups=_groups(starts, cells) if query.group_by else (),
    )


def check(query: UsageQuery) -> None:
    """Raises BadUserInputError, its path from ("input", …), for what can't be asked whatever the ledger holds."""
    _check(query)
    _starts(query)


def error_rate(sums: UsageSums) -> float | None:
    """Of the attempts, 0 to 1; None where there are none."""
    return sums.failed_attempts / sums.attempts if sums.attempts else None


def output_tokens_per_second(sums: UsageSums) -> float | None:
    """While attempts that wrote something ran; None where that took no time."""
    return sums.written_tokens * 1000 / sums.writing_ms if sums.writing_ms else None


def _check(query: UsageQuery) -> None:
    if query.since.astimezone(UTC) >= query.until.astimezone(UTC):
        raise BadUserInputError("the range ends before it begins", path=("input", "until"))
    if len(query.group_by) > MAX_DIMENSIONS:
        raise BadUserInputError(f"group by at most {MAX_DIMENSIONS} dimensions", path=("input", "groupBy"))
    for index, dimension in enumerate(query.group_by):
        if dimension in query.group_by[:index]:
            raise BadUserInputError("this dimension is already there", path=("input", "groupBy", index))
        if dimension == LabelName(""):
            raise BadUserInputError("a label has a name", path=("input", "groupBy", index, "label"))
    for name, values in query.where.fields.items():
        if len(values) > MAX_VALUES:
            raise BadUserInputError(
                f"filter by at most {MAX_VALUES} values of a field", path=("input", "filter", to_camel(name))
            )
    if len(query.where.labels) > MAX_LABELS:
        raise BadUserInputError(f"filter by at most {MAX_LABELS} labels", path=("input", "filter", "labels"))


def _starts(query: UsageQuery) -> Sequence[datetime]:
    """Where buckets begin, and the last one ends, in the zone asked for; without buckets, where the range does."""
    zone = zone_named(query.time_zone)
    if query.bucket is None:
        return ()
    try:
        found = boundaries(query.since, query.until, query.bucket, zone, limit=MAX_CELLS)
    except OverflowError:
        raise BadUserInputError("the calendar has no such time", path=("input", "since")) from None
    if found[-1].astimezone(UTC) < query.until.astimezone(UTC):
        raise BadUserInputError(
            f"the range has more than {MAX_CELLS} buckets: ask for longer ones, or a shorter range",
            path=("input", "bucket"),
        )
    return [start.astimezone(zone) for start in found]


def zone_named(name: str) -> ZoneInfo:
    """An IANA time zone. Raises BadUserInputError, its path ("input", "timeZone")."""
    if name not in _zones():
        raise BadUserInputError(
            f'{name[:100]!r} is not an IANA time zone, such as "Europe/Berlin"', path=("input", "timeZone")
        )
    return ZoneInfo(name)


@cache
def _zones() -> frozenset[str]:
    """Not what the machine's own folder holds beside them: "localtime", leap seconds, other files."""
    return frozenset(files("tzdata").joinpath("zones").read_text().split()) - {"Factory"}


def _total(parts: Iterable[UsageCell | UsageBucket]) -> UsageSums:
    return UsageSums.of([each.sums for each in parts])


def _series(starts: Sequence[datetime], cells: Iterable[UsageCell]) -> tuple[UsageBucket, ...]:
    spans: dict[int, list[UsageCell]] = {}
    for cell in cells:
        spans.setdefault(cell.span, []).append(cell)
    return tuple(
        UsageBucket(start, end, _total(spans.get(number, ()))) for number, (start, end) in enumerate(pairwise(starts))
    )


def _groups(starts: Sequence[datetime], cells: Iterable[UsageCell]) -> tuple[UsageGroup, ...]:
    found: dict[tuple[Value, ...] | None, list[UsageCell]] = {}
    for cell in cells:
        found.setdefault(cell.group, []).append(cell)
    groups = [UsageGroup(values, _total(each), _series(starts, each)) for values, each in found.items()]
    return tuple(sorted(groups, key=_place))


def _place(group: UsageGroup) -> tuple[object, ...]:
    """The largest first, the rest last."""
    return group.values is None, -group.sums.attempts, [(value is None, str(value)) for value in group.values or ()]
