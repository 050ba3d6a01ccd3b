"""Usage that is summed up already: cells of an organisation, a slot of time and the values of some dimensions.

The database's triggers add each entry, in the transaction that inserts it, to a cell of its quarter hour (the tier
LIVE), and note its period of four hours as open. Once a period is over it is folded: its cells are added up to those of
the other tiers, which are fewer. An entry that comes later opens it anew; what is open is read from LIVE.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

from ..histograms import lanes, packed
from ..usage_records import UsageField
from .database import transaction

QUARTER_MS = 900_000
"""Every offset of a time zone in use is a multiple of it."""

HOUR_MS = 4 * QUARTER_MS
PERIOD_MS = 4 * HOUR_MS
DAY_MS = 6 * PERIOD_MS
PICO = 10**12
"""Of what a cell's cost is in, to the dollar."""

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
_READ = (*COUNTS, "other_costs", "latency", "latency_marks", "time_to_first_token", "first_token_marks")
_WRITTEN = (*COUNTS, "other_costs", "latency", "time_to_first_token")
_CELLS = f"""
    SELECT {", ".join((*_KEY, *_READ))} FROM usage_cells
    WHERE organisation = :organisation AND tier = :tier AND slot >= :start AND slot < :end
"""  # noqa: S608  # column names alone: values are bound, here and below
_INSERT = f"""
    INSERT INTO usage_cells (organisation, part, {", ".join((*_KEY, *_WRITTEN))})
    VALUES (?, 0{", ?" * len((*_KEY, *_WRITTEN))})
"""  # noqa: S608
_DELETE = """
    DELETE FROM usage_cells WHERE organisation = :organisation AND tier = :tier AND slot >= :start AND slot < :end
"""
_OPEN = "SELECT organisation, period FROM usage_open WHERE period <= ? ORDER BY period LIMIT 1"
_CLOSE = "DELETE FROM usage_open WHERE organisation = ? AND period = ?"

_Key = tuple[Any, ...]


@dataclass(slots=True)
class _Sum:
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    other_costs: Decimal = Decimal(0)
    latency: int = 0
    first_token: int = 0

    def add(self, other: _Sum) -> None:
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.latency += other.latency
        self.first_token += other.first_token
        if other.other_costs:
            self.other_costs = _EXACT.add(self.other_costs, other.other_costs)

    def row(self) -> tuple[int | str, ...]:
        """In the order of _WRITTEN."""
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


def fold_next(connection: sqlite3.Connection, until_ms: int) -> bool:
    """Fold the oldest open period that has ended by then. False: there is none."""
    with transaction(connection):
        found = connection.execute(_OPEN, (until_ms - PERIOD_MS,)).fetchone()
        if found is not None:
            _fold(connection, *found)
    return found is not None


def _fold(connection: sqlite3.Connection, organisation: str, period: int) -> None:
    sums: dict[_Key, _Sum] = {}
    for key, cell in _cells(connection, organisation, LIVE.number, period, PERIOD_MS):
        for tier in FOLDED:
            sums.setdefault(_folded_key(tier, key), _Sum()).add(cell)
    day = period - period % DAY_MS
    for tier, source in OF_DAYS.items():
        for key, cell in _cells(connection, organisation, source.number, day, DAY_MS):
            if key[1] != period:
                sums.setdefault(_folded_key(tier, key), _Sum()).add(cell)
    for tier in FOLDED:
        start, width = (day, DAY_MS) if tier.width_ms == DAY_MS else (period, PERIOD_MS)
        connection.execute(_DELETE, _within(organisation, tier.number, start, width))
    connection.executemany(_INSERT, ((organisation, *key, *total.row()) for key, total in sums.items()))
    connection.execute(_CLOSE, (organisation, period))


def _cells(
    connection: sqlite3.Connection, organisation: str, tier: int, start: int, width: int
) -> Iterator[tuple[_Key, _Sum]]:
    keys, counts = len(_KEY), len(_KEY) + len(COUNTS)
    for row in connection.execute(_CELLS, _within(organisation, tier, start, width)):
        others, latency, latency_marks, first_token, first_token_marks = row[counts:]
        total = _Sum(
            row[keys:counts], parsed(others), lanes(latency, latency_marks), lanes(first_token, first_token_marks)
        )
        yield row[:keys], total


def _within(organisation: str, tier: int, start: int, width: int) -> Mapping[str, str | int]:
    return {"organisation": organisation, "tier": tier, "start": start, "end": start + width}


def _folded_key(tier: Tier, key: _Key) -> _Key:
    _, slot, *values = key
    kept = len(tier.dimensions)
    return (tier.number, slot - slot % tier.width_ms, *values[:kept], *[NOTHING] * (len(WIDE) - kept))
