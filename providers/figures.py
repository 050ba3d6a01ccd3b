"""What a vendor's figure must be to be booked: the ledger adds them up, and no vendor's slip may break its sums."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

MAX_COUNT: Final = 2**53
"""Tokens; far beyond any call, and so far below 2^63 that a database adds millions of them."""

MIN_COST: Final = 1e-30
MAX_COST: Final = 1e9
"""In USD; no call costs as little, if it costs at all, nor as much."""


def is_count(value: Any) -> TypeGuard[int]:
    """Whether `value` is a whole number of tokens from 0 to MAX_COUNT; a boolean is none."""
    return type(value) is int and 0 <= value <= MAX_COUNT


def is_cost(value: Any) -> TypeGuard[int | float]:
    """Whether `value` is 0, or from MIN_COST to less than MAX_COST; a boolean is none, nor is what is not finite."""
    return type(value) in (int, float) and (value == 0 or MIN_COST <= value < MAX_COST)
