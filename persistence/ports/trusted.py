"""The documents that the operator has registered. They are of no organisation: whoever may call may run them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..trusted_records import TrustedDocument


class TrustedDocumentStore(Protocol):
    """Every method raises StoreUnavailableError, and ValueError for what can't be stored."""

    async def register(self, documents: Sequence[TrustedDocument]) -> int:
        """All of them or none; how many are new. What is there already stays as it is."""
        ...

    async def text(self, sha256: str) -> str | None: ...

    async def remove(self, sha256: str) -> bool:
        """Whether it was there."""
        ...

    async def page(self, *, limit: int, after: str | None = None) -> Sequence[TrustedDocument]:
        """By hash; `after`: with greater ones alone."""
        ...
