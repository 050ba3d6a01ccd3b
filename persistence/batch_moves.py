"""What a move makes of an item, and what moves come to for their batches: the same in every store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from .batch_records import Item, ItemState, Move

_KEPT = ("completion_id", "vendor_run", "result", "error", "ended_at")
"""What a move sets where it is not None."""


def moved(item: Item, move: Move) -> Item | None:
    """The item after the move; None where it is not as the move expects."""
    if item.state not in move.expects or (move.fence is not None and move.fence != item.fence):
        return None
    given = {name: value for name in _KEPT if (value := getattr(move, name)) is not None}
    if move.resets:
        item = replace(item, failures=0, lost=0, error=None, ended_at=None, vendor_run=None)
    return replace(
        item,
        state=move.to,
        due=move.due,
        fence=item.fence + (move.claims or move.revokes),
        failures=item.failures + move.failures,
        lost=item.lost + move.lost,
        cost=item.cost if move.cost is None else (item.cost or Decimal(0)) + move.cost,
        unpriced=item.unpriced or move.unpriced,
        **given,
    )


@dataclass(slots=True)
class Change:
    """What is to be added to a batch."""

    counts: Counter[ItemState] = field(default_factory=Counter)
    cost: Decimal = Decimal(0)
    unpriced: int = 0

    def __bool__(self) -> bool:
        return any(self.counts.values()) or bool(self.cost) or bool(self.unpriced)


def changes(items: Iterable[tuple[Item, Item]]) -> Mapping[tuple[str, str], Change]:
    """By organisation and batch, of items before and after. Batches that stay as they are have none."""
    found: dict[tuple[str, str], Change] = {}
    for before, after in items:
        change = found.setdefault((after.organisation, after.batch), Change())
        change.counts[before.state] -= 1
        change.counts[after.state] += 1
        change.cost += (after.cost or 0) - (before.cost or 0)
        change.unpriced += after.unpriced - before.unpriced
    return {name: found[name] for name in sorted(found) if found[name]}
