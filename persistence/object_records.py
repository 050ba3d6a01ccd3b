"""Files in object storage, as plain dataclasses. Times are aware UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class StoredObject:
    """`name` is the organisation's own: it has its prefix neither here nor in any call."""

    name: str
    size_bytes: int
    written_at: datetime
