"""API keys for tests: one by hand, and a store of them in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from uuid_utils import uuid7

from persistence.audit_records import AuditEvent
from persistence.key_records import ApiKey, ApiKeyFilter, Grant, PresentedKey
from persistence.ports import Audit, Conflict, StoreConflictError, StoreUnavailableError
from tests.persistence.entries import NOON


def api_key(**changes: Any) -> ApiKey:
    values: dict[str, Any] = {
        "id": f"key_{uuid7().hex}",
        "organisation": "acme",
        "name": "A server",
        "hint": "aim_AbCdEf",
        "grant": Grant(scopes=("completions:write",)),
        "revision": 1,
        "created_at": NOON,
        "created_by": "somebody",
        "updated_at": NOON,
    }
    return ApiKey(**values | changes)


class MemoryApiKeys:
    """`persistence.ports.ApiKeyStore` in memory. `down` fails every call; `reads` counts those by digest; `events`
    is what was noted."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], ApiKey] = {}
        self.digests: dict[str, tuple[tuple[str, str], datetime | None]] = {}
        self.down = False
        self.reads = 0
        self.events: list[AuditEvent] = []

    async def create(self, key: ApiKey, digest: str, *, at_most: int, audit: Audit[ApiKey]) -> None:
        self._check()
        if len([each for each in self._of(key.organisation) if each.opens(key.created_at)]) >= at_most:
            raise StoreConflictError(f"there are {at_most} API keys", on=Conflict.FULL)
        self.keys[key.organisation, key.id] = key
        self.digests[digest] = ((key.organisation, key.id), None)
        self.events.append(audit(None, key))

    async def by_digest(self, digest: str) -> PresentedKey | None:
        self._check()
        self.reads += 1
        found = self.digests.get(digest)
        return None if found is None else PresentedKey(self.keys[found[0]], found[1])

    async def by_id(self, organisation: str, key_id: str) -> ApiKey | None:
        self._check()
        return self.keys.get((organisation, key_id))

    async def page(
        self, organisation: str, *, where: ApiKeyFilter, limit: int, before: str | None = None
    ) -> Sequence[ApiKey]:
        self._check()
        if limit < 1:
            raise ValueError("limit must be at least 1")
        found = [
            key
            for key in self._of(organisation)
            if (before is None or key.id < before) and (where.opens_at is None or key.opens(where.opens_at))
        ]
        return sorted(found, key=lambda key: key.id, reverse=True)[:limit]

    async def save(self, key: ApiKey, *, expected_revision: int, audit: Audit[ApiKey]) -> ApiKey | None:
        standing = await self._standing(key.organisation, key.id)
        if standing is None:
            return None
        if standing.revision != expected_revision:
            raise StoreConflictError("another revision", on=Conflict.REVISION)
        changes = {name: getattr(key, name) for name in ("name", "grant", "expires_at", "updated_at")}
        return self._keep(standing, audit, **changes)

    async def rotate(
        self,
        organisation: str,
        key_id: str,
        digest: str,
        *,
        hint: str,
        until: datetime,
        at: datetime,
        audit: Audit[ApiKey],
    ) -> ApiKey | None:
        standing = await self._standing(organisation, key_id)
        if standing is None:
            return None
        for each, (owner, ends) in self.digests.items():
            if owner == (organisation, key_id):
                self.digests[each] = (owner, until if ends is None else min(ends, until))
        self.digests[digest] = ((organisation, key_id), None)
        return self._keep(standing, audit, hint=hint, updated_at=at)

    async def revoke(
        self, organisation: str, key_id: str, *, at: datetime, by: str, audit: Audit[ApiKey]
    ) -> ApiKey | None:
        standing = await self.by_id(organisation, key_id)
        if standing is None or standing.revoked_at is not None:
            return standing
        return self._keep(standing, audit, revoked_at=at, revoked_by=by, updated_at=at)

    async def note_uses(self, uses: Mapping[tuple[str, str], datetime]) -> None:
        self._check()
        for name, at in uses.items():
            if (key := self.keys.get(name)) is not None and (key.last_used_at is None or key.last_used_at < at):
                self.keys[name] = replace(key, last_used_at=at)

    async def _standing(self, organisation: str, key_id: str) -> ApiKey | None:
        standing = await self.by_id(organisation, key_id)
        if standing is not None and standing.revoked_at is not None:
            raise StoreConflictError("the key is revoked", on=Conflict.ENDED)
        return standing

    def _keep(self, standing: ApiKey, audit: Audit[ApiKey], **changes: Any) -> ApiKey:
        kept = replace(standing, revision=standing.revision + 1, **changes)
        self.keys[kept.organisation, kept.id] = kept
        self.events.append(audit(standing, kept))
        return kept

    def _of(self, organisation: str) -> list[ApiKey]:
        return [key for key in self.keys.values() if key.organisation == organisation]

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailableError("down")
