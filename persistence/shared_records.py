"""What processes count and replay together, as plain dataclasses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """So much of what `limit` allows within `seconds` from the first that was taken, exact up to 2**53. `of_operator`:
    counted for all organisations together."""

    key: str
    amount: int
    limit: int
    seconds: float
    of_operator: bool = False


@dataclass(frozen=True, slots=True)
class Shortage:
    """The demand that can't be met, what is left of it, and in how many seconds it begins anew."""

    demand: Demand
    left: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Replayed:
    """One event of a stream. Sequences strictly rise, from 0 or more; they may have gaps."""

    sequence: int
    event: str
