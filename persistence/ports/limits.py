"""Limits, as they are set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..limit_records import Limited, LimitRule
from .audit import Audit


class LimitStore(Protocol):
    """An organisation's limits, one rule for each that is limited. Every method raises StoreUnavailableError."""

    async def put(self, rule: LimitRule, *, audit: Audit[LimitRule]) -> None:
        """In the place of the one before, if there is one. Raises ValueError for what can't be stored."""
        ...

    async def of(self, organisation: str) -> Sequence[LimitRule]:
        """By kind and name."""
        ...

    async def delete(self, organisation: str, limited: Limited, name: str, *, audit: Audit[LimitRule]) -> bool:
        """Whether there was one."""
        ...
