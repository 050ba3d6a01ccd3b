"""Provider keys for tests: a store of them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from persistence.audit_records import AuditEvent
from persistence.ports import Audit, StoreUnavailableError
from persistence.provider_key_records import StoredProviderKey
from tests.persistence.entries import NOON


def provider_key(**changes: Any) -> StoredProviderKey:
    values: dict[str, Any] = {
        "organisation": "acme",
        "provider": "openai",
        "sealed": "env:v1:c2VhbGVk",
        "hint": "abcd",
        "created_at": NOON,
        "created_by": "somebody",
    }
    return StoredProviderKey(**values | changes)


class MemoryProviderKeys:
    """`persistence.ports.ProviderKeyStore` in memory. `down` fails every call; `reads` counts an organisation's;
    `events` is what was noted."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], StoredProviderKey] = {}
        self.down = False
        self.reads = 0
        self.events: list[AuditEvent] = []

    async def put(self, key: StoredProviderKey, *, audit: Audit[StoredProviderKey]) -> None:
        self._check()
        self.events.append(audit(self.keys.get((key.organisation, key.provider)), key))
        self.keys[key.organisation, key.provider] = key

    async def of(self, organisation: str) -> Sequence[StoredProviderKey]:
        self._check()
        self.reads += 1
        return [key for name, key in sorted(self.keys.items()) if name[0] == organisation]

    async def delete(self, organisation: str, provider: str, *, audit: Audit[StoredProviderKey]) -> bool:
        self._check()
        deleted = self.keys.pop((organisation, provider), None)
        if deleted is not None:
            self.events.append(audit(deleted, None))
        return deleted is not None

    async def every(self, *, limit: int, after: tuple[str, str] | None = None) -> Sequence[StoredProviderKey]:
        self._check()
        if limit < 1:
            raise ValueError("limit must be at least 1")
        return [key for name, key in sorted(self.keys.items()) if after is None or name > after][:limit]

    async def reseal(self, key: StoredProviderKey, sealed: str) -> bool:
        self._check()
        name = key.organisation, key.provider
        standing = self.keys.get(name)
        if standing is None or standing.sealed != key.sealed:
            return False
        self.keys[name] = replace(standing, sealed=sealed)
        return True

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("down")
