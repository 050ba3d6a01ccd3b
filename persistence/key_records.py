"""API keys as they are stored. Times are aware UTC, in whole milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

FORGOTTEN_AFTER = timedelta(days=1)
"""For so long a digest that has ended is remembered, so that who presents it is told what has become of it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key may do: `scopes`, and those of its `roles`. `models` ("provider/model", or "provider/*") and `configs`
    (slugs) are all that it may use, `networks` (CIDR) all that it may be used from; None: any."""

    scopes: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    models: tuple[str, ...] | None = None
    configs: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential for a server. Of the key itself nothing is kept but its beginning, the `hint`, and a keyed hash of
    it, its digest, which is the store's alone. Ids sort by time. `last_used_at` may lag behind by a minute."""

    id: str
    organisation: str
    name: str
    hint: str
    grant: Grant
    revision: int
    created_at: datetime
    created_by: str
    updated_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    last_used_at: datetime | None = None

    def opens(self, at: datetime) -> bool:
        """Neither revoked nor expired then."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


@dataclass(frozen=True, slots=True)
class PresentedKey:
    """What a digest stands for, `until` that time where the key has been rotated since."""

    key: ApiKey
    until: datetime | None


@dataclass(frozen=True, slots=True)
class ApiKeyFilter:
    """`opens_at`: those that are neither revoked nor expired then."""

    opens_at: datetime | None = None
