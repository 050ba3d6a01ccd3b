"""Organisations' own keys at providers, as they are stored. Times are aware UTC, in whole milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StoredProviderKey:
    """`sealed`: the key, encrypted; only who has the deployment's ENCRYPTION_KEY opens it. `hint`: its last characters,
    for people."""

    organisation: str
    provider: str
    sealed: str
    hint: str
    created_at: datetime
    created_by: str
