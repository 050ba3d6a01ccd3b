"""Keys at providers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..provider_key_records import StoredProviderKey
from .audit import Audit


class ProviderKeyStore(Protocol):
    """An organisation's keys at providers, one for each. Every method raises StoreUnavailableError. What `audit` makes
    of a write is committed with it."""

    async def put(self, key: StoredProviderKey, *, audit: Audit[StoredProviderKey]) -> None:
        """In the place of the one before, if there is one."""
        ...

    async def of(self, organisation: str) -> Sequence[StoredProviderKey]:
        """By the providers' names."""
        ...

    async def delete(self, organisation: str, provider: str, *, audit: Audit[StoredProviderKey]) -> bool:
        """Whether there was one; else nothing is noted."""
        ...

    async def every(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[StoredProviderKey]:
        """All organisations', by organisation and provider, those behind `after`: for the operator, who seals them
        anew. Raises ValueError for a limit below 1."""
        ...

    async def reseal(self, key: StoredProviderKey, sealed: str) -> bool:
        """Only if it is sealed as `key` says still; whether it was."""
        ...
