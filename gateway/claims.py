"""What a token's claims say, under the names that its issuer gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from resolvers.errors import UnauthenticatedError
from resolvers.principal import UNLIMITED, Limits, Principal, scopes_of

MAX_NAME_BYTES = 512
LISTS = ("models", "configs", "networks")
_LATEST_EXPIRY = 253_402_300_800  # the year 10000: milliseconds, infinity and NaN are no times


class UnusableTokenError(UnauthenticatedError):
    """A token that is malformed, forged or expired. Says which, and nothing of its content."""


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """`issuer` and `audience` are checked where they are set. `scope` names a claim with names separated by spaces (RFC
    8693, 4.2), or a list of them, as Okta has it in `scp`; `roles` one with a list of roles, such as Entra's `roles`.

    Sources: https://developer.okta.com/docs/reference/api/oidc/#access-token-scopes-and-claims,
    https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference.
    """

    issuer: str | None = None
    audience: str | None = None
    organisation: str = "org"
    scope: str = "scope"
    roles: str | None = None

    @property
    def required(self) -> list[str]:
        scopes = [self.scope] if self.roles is None else []
        named = [name for name, given in (("iss", self.issuer), ("aud", self.audience)) if given is not None]
        return ["sub", self.organisation, *scopes, "exp", *named]


OURS = ClaimRules()


def principal_of(claims: Mapping[str, Any], rules: ClaimRules = OURS, *, ours: bool = True) -> Principal:
    """`ours`: signed with this deployment's own secret; then it may be limited, and made by a key. Raises
    UnusableTokenError."""
    subject, organisation, expiry = claims["sub"], claims[rules.organisation], claims["exp"]
    if not (
        _is_name(subject) and _is_name(organisation) and isinstance(expiry, int | float) and 0 < expiry < _LATEST_EXPIRY
    ):
        raise UnusableTokenError(
            f"the token's claims sub, {rules.organisation} and exp are not what they must be: two names of at most"
            f" {MAX_NAME_BYTES} bytes, and a time"
        )
    scopes = _names(claims, rules.scope)
    roles = () if rules.roles is None else _names(claims, rules.roles)
    key_id = claims.get("key") if ours else None
    return Principal(
        subject,
        organisation,
        scopes_of(scopes, roles),
        float(expiry),
        limits=_limits(claims) if ours else UNLIMITED,
        key_id=key_id if isinstance(key_id, str) else None,
    )


def _names(claims: Mapping[str, Any], name: str) -> Iterable[str]:
    given = claims.get(name, "")
    if isinstance(given, str):
        return given.split()
    if isinstance(given, list) and all(isinstance(each, str) for each in given):
        return given
    raise UnusableTokenError(f"the token's claim {name} is neither a text nor a list of texts")


def _limits(claims: Mapping[str, Any]) -> Limits:
    if not any(name in claims for name in LISTS):
        return UNLIMITED
    lists: dict[str, tuple[str, ...] | None] = {}
    for name in LISTS:
        given = claims.get(name)
        if given is not None and not (isinstance(given, list) and all(map(_is_name, given))):
            raise UnusableTokenError(f"the token's claim {name} is not a list of texts")
        lists[name] = None if given is None else tuple(given)
    return Limits(**lists)


def _is_name(claim: object) -> bool:
    """Text that can be stored, also as a part of an index: JSON's escapes can write half a character."""
    if not isinstance(claim, str) or any("\ud800" <= character <= "\udfff" for character in claim):
        return False
    return 0 < len(claim.encode()) <= MAX_NAME_BYTES
