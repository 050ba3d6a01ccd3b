"""Reading of vectors, which every vendor tells as lists of numbers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import isfinite
from typing import Any


def vector_of(value: Any) -> Sequence[float] | None:
    """None for what is no list of finite numbers, or an empty one. The numbers stay as they came."""
    if not isinstance(value, list) or not value:
        return None
    try:
        numbers = array("d", value)
    except (TypeError, OverflowError):
        return None
    return value if isfinite(sum(map(abs, numbers))) else None
