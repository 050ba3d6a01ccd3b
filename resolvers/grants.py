"""What may be granted: by its form, and by who grants it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_network

from persistence.key_records import Grant

from .errors import BadUserInputError, ForbiddenError
from .permits import lies_within
from .principal import Limits, Principal, Role, Scope, scopes_of

MAX_LISTED = 100
MODEL_FORM = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}/[^\s\x00-\x1f]{1,256}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_grant(grant: Grant) -> None:
    """Raises BadUserInputError, its path from `input` on."""
    if not grant.scopes and not grant.roles:
        raise BadUserInputError("a key without scopes and roles may do nothing: give it one", path=("input", "scopes"))
    _check_named("scopes", grant.scopes, [scope.value for scope in Scope])
    _check_named("roles", grant.roles, [role.value for role in Role])
    _check_form("models", grant.models, MODEL_FORM, "is written provider/model, or provider/* for all of a provider's")
    _check_form("configs", grant.configs, _SLUG, "is a config's slug")
    for index, network in enumerate(_listed("networks", grant.networks)):
        try:
            ip_network(network)
        except ValueError:
            raise BadUserInputError(
                f"{network[:60]!r} is no network such as 203.0.113.0/24 or 2001:db8::/32, nor an address",
                path=("input", "networks", index),
            ) from None


def check_within(grant: Grant, principal: Principal) -> None:
    """Raises ForbiddenError where the grant allows what the principal may not."""
    if beyond := sorted(scopes_of(grant.scopes, grant.roles) - principal.scopes):
        raise ForbiddenError(f"that key may do what you may not: {beyond[0]}")
    if name := lies_within(limits_of(grant), principal.limits):
        raise ForbiddenError(f"you are limited to certain {name}, and that key goes beyond them")


def limits_of(grant: Grant) -> Limits:
    return Limits(grant.models, grant.configs, grant.networks)


def _check_named(name: str, given: Sequence[str], known: Sequence[str]) -> None:
    for index, each in enumerate(_listed(name, given)):
        if each not in known:
            raise BadUserInputError(f"{each[:60]!r} is none of {', '.join(known)}", path=("input", name, index))


def _check_form(name: str, given: Sequence[str] | None, form: re.Pattern[str], told: str) -> None:
    for index, each in enumerate(_listed(name, given)):
        if form.fullmatch(each) is None:
            raise BadUserInputError(f"{each[:60]!r}: each of {name} {told}", path=("input", name, index))


def _listed(name: str, given: Sequence[str] | None) -> Sequence[str]:
    if given is not None and len(given) > MAX_LISTED:
        raise BadUserInputError(f"at most {MAX_LISTED} {name}, not {len(given)}", path=("input", name))
    return given or ()
