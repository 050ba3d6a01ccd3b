"""How often a cache had what was asked of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class CacheCounts:
    """Since the process began. A hit needed no read; what is known and stale is a miss, also where it had to serve."""

    hits: int = 0
    misses: int = 0
