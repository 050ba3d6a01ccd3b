"""For how long entries are kept, and how. Apart from the driver, so that settings are checked without one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

REFRESH_WINDOW = timedelta(days=4)
"""How far back TimescaleDB itself brings the aggregates up to date, again and again."""

DROP_MARGIN = timedelta(days=1)
"""Entries are dropped this much later than the first one is refused: what came last is in the sums by then."""

SHORTEST_RETENTION = REFRESH_WINDOW + DROP_MARGIN


class Edition(StrEnum):
    """What the database can do: https://docs.timescale.com/about/latest/timescaledb-editions/"""

    POSTGRESQL = "postgresql"
    APACHE = "apache"
    COMMUNITY = "community"


@dataclass(frozen=True, slots=True)
class Policies:
    """`retention`: without one, entries are kept for ever; sums always are. `compress_after`: under TimescaleDB's
    community licence alone. Raises ValueError for a retention that cuts into the aggregates' refresh window."""

    retention: timedelta | None = None
    compress_after: timedelta | None = timedelta(days=30)

    def __post_init__(self) -> None:
        if self.retention is not None and self.retention < SHORTEST_RETENTION:
            raise ValueError(
                f"entries must be kept for {SHORTEST_RETENTION.days} days or more: sums are refreshed from those of "
                f"the last {REFRESH_WINDOW.days} days, and would lose what was dropped"
            )
