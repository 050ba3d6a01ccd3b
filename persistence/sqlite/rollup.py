"""Usage that is summed up already: cells of an organisation, a slot of time and the values of some dimensions.

The database's triggers add each entry, in the transaction that inserts it, to a cell of its quarter hour (the tier
LIVE), and note its period of four hours as open. Once a period is over it is folded (`folding`): its cells are added up
to those of the other tiers, which are fewer. An entry that comes later opens it anew; what is open is read from LIVE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

import orjson

from ..histograms import lanes, packed
from ..usage_records import UsageField

QUARTER_MS = 900_000
"""Every offset of a time zone in use is a multiple of it."""

HOUR_MS = 4 * QUARTER_MS
PERIOD_MS = 4 * HOUR_MS
DAY_MS = 6 * PERIOD_MS
NOTHING = b""
"""In a cell: the entry has no value, or the tier has no such dimension."""

NARROW = (UsageField.PROVIDER, UsageField.MODEL, UsageField.OUTCOME)
WIDE = (*NARROW, UsageField.PRINCIPAL, UsageField.CONFIG, UsageField.CONFIG_VERSION)


@dataclass(frozen=True, slots=True)
class Tier:
    number: int
    width_ms: int
    dimensions: tuple[UsageField, ...]


LIVE = Tier(0, QUARTER_MS, WIDE)
FOLDED = (
    Tier(1, QUARTER_MS, NARROW),
    Tier(2, HOUR_MS, NARROW),
    Tier(3, PERIOD_MS, NARROW),
    Tier(4, DAY_MS, NARROW),
    Tier(5, HOUR_MS, WIDE),
    Tier(6, PERIOD_MS, WIDE),
    Tier(7, DAY_MS, WIDE),
)
OF_DAYS = {FOLDED[3]: FOLDED[2], FOLDED[6]: FOLDED[5]}
"""The tiers of whole days → those of periods that they are the sums of."""

COUNTS = (
    "entries",
    "completions",
    "attempts",
    "failed_attempts",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "unpriced",
    "estimated",
    "written_tokens",
    "writing_ms",
    "cost",
)
_EXACT = Context(prec=200)

_KEY = ("tier", "slot", *WIDE)
_SUMS = (*COUNTS, "other_costs", "latency", "time_to_first_token")
_MARKS = ("latency_marks", "first_token_marks")
_WITHIN = """
    FROM json_each(:tiers) CROSS JOIN usage_cells
    WHERE organisation = :organisation AND tier = value AND slot >= :start AND slot < :end
"""
CELLS = f"SELECT {', '.join((*_KEY, *_SUMS, *_MARKS))} {_WITHIN}"  # column names alone: values are bound
FEW_CELLS = f"SELECT count(*) <= :few FROM (SELECT 1 {_WITHIN} LIMIT :few + 1)"  # noqa: S608  # as above
PUT = f"""
    INSERT OR REPLACE INTO usage_cells (organisation, part, {", ".join((*_KEY, *_SUMS))})
    VALUES (?, 0{", ?" * len((*_KEY, *_SUMS))})
"""  # noqa: S608  # as above

Key = tuple[Any, ...]
"""`tier`, `slot` and the dimensions of a cell."""

Row = Sequence[Any]


@dataclass(slots=True)
class CellSum:
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    other_costs: Decimal = Decimal(0)
    latency: int = 0
    first_token: int = 0

    def add(self, other: CellSum) -> None:
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.latency += other.latency
        self.first_token += other.first_token
        if other.other_costs:
            self.other_costs = _EXACT.add(self.other_costs, other.other_costs)

    def row(self) -> tuple[int | str, ...]:
        """As PUT takes it behind the key, and CELLS gives it."""
        *counts, cost = self.counts
        fits = abs(cost) < 2**63
        others = self.other_costs if fits else sum_of(self.other_costs, cost)
        return (
            *counts,
            cost if fits else 0,
            f"{others:f} " if others else "",
            packed(self.latency),
            packed(self.first_token),
        )


def sum_of(others: Decimal, picos: int) -> Decimal:
    """USD of a cell's two sums of cost."""
    return _EXACT.add(others, _EXACT.scaleb(Decimal(picos), -12))


def parsed(others: str) -> Decimal:
    """The sum of a cell's `other_costs`."""
    total = Decimal(0)
    for each in others.split():
        total = _EXACT.add(total, Decimal(each))
    return total


def cell_of(row: Row) -> tuple[Key, CellSum]:
    """Of CELLS."""
    keys, counts, sums = len(_KEY), len(_KEY) + len(COUNTS), len(_KEY) + len(_SUMS)
    others, latency, first_token = row[counts:sums]
    latency_marks, first_token_marks = row[sums:]
    total = CellSum(
        list(row[keys:counts]), parsed(others), lanes(latency, latency_marks), lanes(first_token, first_token_marks)
    )
    return tuple(row[:keys]), total


def written(row: Row) -> tuple[Key, Row]:
    """Of CELLS, where a fold has put it: its key, and what `CellSum.row` made."""
    return tuple(row[: len(_KEY)]), tuple(row[len(_KEY) : len(_KEY) + len(_SUMS)])


def folded_key(tier: Tier, key: Key) -> Key:
    """Where the cell of that key is summed up in the tier."""
    _, slot, *values = key
    kept = len(tier.dimensions)
    return (tier.number, slot - slot % tier.width_ms, *values[:kept], *[NOTHING] * (len(WIDE) - kept))


def within(organisation: str, tiers: Sequence[Tier], start: int, width: int) -> dict[str, str | int | None]:
    """The parameters of CELLS."""
    numbers = orjson.dumps([tier.number for tier in tiers]).decode()
    return {"organisation": organisation, "tiers": numbers, "start": start, "end": start + width}
