"""Registered documents as they are stored: plain dataclasses, so that every store and use case shares them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class TrustedDocument:
    """A GraphQL document by the SHA-256 of its text in UTF-8, as 64 hexadecimal digits in lower case. `name`: of its
    operation, for people. It is the operator's, and belongs to no organisation."""

    sha256: str
    text: str
    name: str
    registered_at: datetime
