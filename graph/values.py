"""How many values an operation's variables may hold: to coerce one takes up to 5 µs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resolvers.errors import QueryTooComplexError

MAX_VALUES = 10_000
VALUES_A_POINT = 20


def count_values(variables: Mapping[str, Any]) -> int:
    """Of all variables, those within lists and objects too. Raises QueryTooComplexError."""
    waiting: list[Any] = [variables]
    count = -1
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        if len(waiting) > MAX_VALUES:
            break
    count += len(waiting)
    if count > MAX_VALUES:
        raise QueryTooComplexError("values in variables", count, MAX_VALUES)
    return count
