"""Who is asking: built anew for each operation, from a verified token."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .errors import ForbiddenError


class Scope(StrEnum):
    """What a token may do. Declared on GraphQL fields; the names are part of the API."""

    COMPLETIONS_WRITE = "completions:write"
    COMPLETIONS_READ = "completions:read"
    USAGE_READ = "usage:read"
    USAGE_WRITE = "usage:write"
    CONFIGS_READ = "configs:read"
    CONFIGS_WRITE = "configs:write"
    PRICES_READ = "prices:read"
    PRICES_WRITE = "prices:write"


@dataclass(frozen=True, slots=True)
class Principal:
    """A subject within one organisation. `expires_at` is in seconds since the epoch, as in the token's `exp`."""

    subject: str
    organisation: str
    scopes: frozenset[str]
    expires_at: float

    def require(self, scope: Scope) -> None:
        """Raises ForbiddenError, naming the scope that is missing."""
        if scope not in self.scopes:
            raise ForbiddenError(f"this token lacks the scope {scope.value!r}")
