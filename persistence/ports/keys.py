"""Credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from ..key_records import ApiKey, ApiKeyFilter, PresentedKey
from .audit import Audit


class ApiKeyStore(Protocol):
    """API keys, found by their digests. Every method raises StoreUnavailableError.

    Digests are unique over all organisations; `by_digest` is the one read without an organisation, since it is what
    tells which one is asking. What `audit` makes of a write is committed with it.
    """

    async def create(self, key: ApiKey, digest: str, *, at_most: int, audit: Audit[ApiKey]) -> None:
        """Both or nothing. Raises StoreConflictError where the organisation has so many that open at its
        `created_at`."""
        ...

    async def by_digest(self, digest: str) -> PresentedKey | None:
        """Also of a key that is revoked or has expired, and of a digest whose time is over: the caller looks at that.
        None where it was never one, or long ago."""
        ...

    async def by_id(self, organisation: str, key_id: str) -> ApiKey | None: ...

    async def page(
        self, organisation: str, *, where: ApiKeyFilter, limit: int, before: str | None = None
    ) -> Sequence[ApiKey]:
        """The newest first, those whose ids are less than `before`. Raises ValueError for a limit below 1."""
        ...

    async def save(self, key: ApiKey, *, expected_revision: int, audit: Audit[ApiKey]) -> ApiKey | None:
        """Writes name, grant, `expires_at` and `updated_at` as the next revision; None where there is no such key in
        its organisation. Raises StoreConflictError for another revision, and for a key that is revoked (ENDED)."""
        ...

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
        """From now on the key is also presented by `digest`; by each earlier one `until` then, if not less long. The
        next revision. None where there is no such key; raises StoreConflictError for one that is revoked (ENDED)."""
        ...

    async def revoke(
        self, organisation: str, key_id: str, *, at: datetime, by: str, audit: Audit[ApiKey]
    ) -> ApiKey | None:
        """For good, as the next revision; one that is revoked stays as it is, and nothing is noted. None where there is
        no such key."""
        ...

    async def note_uses(self, uses: Mapping[tuple[str, str], datetime]) -> None:
        """By organisation and id: when each was used last, unless a later use is known. No revision; unknown ones are
        passed over."""
        ...
