"""Price rules as they are stored. Money is Decimal USD; times are aware UTC, in whole milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Override:
    """Prices for a million tokens of each kind. Where a kind has none, cached input and cache writes cost what `input`
    does, reasoning what `output` does."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Discount:
    """`percent` off the published prices, above 0 and up to 100."""

    percent: Decimal


@dataclass(frozen=True, slots=True)
class PriceRule:
    """What an organisation pays from `since` (inclusive) until `until` (exclusive; None: for good). Nothing of a rule
    changes but its end, and none is deleted. Ids sort by time.

    It holds for the vendor's own `model`, exactly; without one for every model of the `provider`; without either, which
    only a discount can be, for all providers.
    """

    id: str
    organisation: str
    provider: str | None
    model: str | None
    terms: Override | Discount
    since: datetime
    until: datetime | None
    note: str | None
    created_at: datetime
    created_by: str

    def holds(self, at: datetime) -> bool:
        return self.since <= at and (self.until is None or at < self.until)


@dataclass(frozen=True, slots=True)
class PriceFilter:
    """All given conditions hold at once; provider and model are the rule's own. `active_at`: it holds at that time."""

    provider: str | None = None
    model: str | None = None
    active_at: datetime | None = None
