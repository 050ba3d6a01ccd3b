"""Who is asking: built anew for each operation, from a verified token or key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    TOKENS_MINT = "tokens:mint"
    PROVIDER_KEYS_READ = "provider_keys:read"
    PROVIDER_KEYS_WRITE = "provider_keys:write"
    AUDIT_READ = "audit:read"
    LIMITS_READ = "limits:read"
    LIMITS_WRITE = "limits:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    BATCHES_READ = "batches:read"
    BATCHES_WRITE = "batches:write"


class Role(StrEnum):
    """A named set of scopes; it grows with the scopes there are. The names are part of the API."""

    CALLER = "caller"
    VIEWER = "viewer"
    DEVELOPER = "developer"
    BILLING = "billing"
    ADMIN = "admin"


_READS = frozenset(scope for scope in Scope if scope.endswith(":read"))

SCOPES_OF: Mapping[Role, frozenset[Scope]] = {
    Role.CALLER: frozenset(
        {
            Scope.COMPLETIONS_WRITE,
            Scope.COMPLETIONS_READ,
            Scope.BATCHES_READ,
            Scope.BATCHES_WRITE,
            Scope.TOKENS_MINT,
        }
    ),
    Role.VIEWER: _READS
    - {Scope.KEYS_READ, Scope.PROVIDER_KEYS_READ, Scope.AUDIT_READ, Scope.WEBHOOKS_READ, Scope.BATCHES_READ},
    Role.DEVELOPER: frozenset(
        {
            Scope.COMPLETIONS_WRITE,
            Scope.COMPLETIONS_READ,
            Scope.BATCHES_READ,
            Scope.BATCHES_WRITE,
            Scope.CONFIGS_READ,
            Scope.CONFIGS_WRITE,
            Scope.USAGE_READ,
            Scope.PRICES_READ,
            Scope.TOKENS_MINT,
            Scope.WEBHOOKS_READ,
            Scope.WEBHOOKS_WRITE,
        }
    ),
    Role.BILLING: frozenset(
        {
            Scope.USAGE_READ,
            Scope.USAGE_WRITE,
            Scope.PRICES_READ,
            Scope.PRICES_WRITE,
            Scope.LIMITS_READ,
            Scope.LIMITS_WRITE,
        }
    ),
    Role.ADMIN: frozenset(Scope),
}


def scopes_of(scopes: Iterable[str], roles: Iterable[str]) -> frozenset[str]:
    """All together. What a later release has named and this one doesn't know opens nothing."""
    known = {role.value: found for role, found in SCOPES_OF.items()}
    return frozenset(scopes).union(*(known.get(role, frozenset()) for role in roles))


@dataclass(frozen=True, slots=True)
class Limits:
    """All that may be used: `models` ("provider/model", "provider/*"), `configs` (slugs), and `networks` (CIDR) that it
    may be used from. None: any."""

    models: tuple[str, ...] | None = None
    configs: tuple[str, ...] | None = None
    networks: tuple[str, ...] | None = None


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an operation came from: the caller's address, None where it has none, and the request's id."""

    address: str | None = None
    request_id: str = ""


UNKNOWN = Origin()


@dataclass(frozen=True, slots=True)
class Principal:
    """A subject within one organisation. `expires_at` is in seconds since the epoch, as in the token's `exp`; infinite
    where a key has no end. `key_id`: of the API key that was presented, or by which the token was minted. `origin` is
    the operation's, for the audit log."""

    subject: str
    organisation: str
    scopes: frozenset[str]
    expires_at: float
    limits: Limits = UNLIMITED
    key_id: str | None = None
    origin: Origin = UNKNOWN

    def require(self, scope: Scope) -> None:
        """Raises ForbiddenError, naming the scope that is missing."""
        if scope not in self.scopes:
            raise ForbiddenError(f"this token lacks the scope {scope.value!r}")
