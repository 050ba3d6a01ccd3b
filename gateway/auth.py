"""Tokens: JWT, HS256 (RFC 7519), and API keys. A token's claims: `sub`, `org`, `scope` (names separated by spaces, RFC
8693, 4.2), `exp`; those that `mintToken` makes may have `models`, `configs`, `networks` and `key`, too."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jwt
from jwt.types import Options

from resolvers.errors import UnauthenticatedError
from resolvers.key_entrance import KeyEntrance, lies_in
from resolvers.principal import UNLIMITED, Limits, Principal

from .key_forms import PREFIX as KEY_PREFIX

ALGORITHM = "HS256"
MAX_TOKEN_LENGTH = 8192
MAX_REMEMBERED = 10_000
_REQUIRED = ["sub", "org", "scope", "exp"]
_LISTS = ("models", "configs", "networks")
_LATEST_EXPIRY = 253_402_300_800  # the year 10000: milliseconds, infinity and NaN are no times
# `exp` is compared at each use, by our clock; `iat` is information, and the minting machine's clock may be ahead.
_CHECKS: Options = {"require": _REQUIRED, "verify_exp": False, "verify_iat": False}


class UnusableTokenError(UnauthenticatedError):
    """A token that is malformed, forged or expired. Says which, and nothing of its content."""


def mint(
    secret: str,
    *,
    subject: str,
    organisation: str,
    scopes: Iterable[str],
    lifetime_s: float,
    limits: Limits = UNLIMITED,
    key_id: str | None = None,
) -> str:
    now = int(time.time())
    claims = {
        "sub": subject,
        "org": organisation,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + int(lifetime_s),
        **{name: list(each) for name in _LISTS if (each := getattr(limits, name)) is not None},
        **({} if key_id is None else {"key": key_id}),
    }
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


@dataclass(frozen=True, slots=True)
class TokenMint:
    """Implements `resolvers.tokens.TokenMaker`."""

    secret: str = field(repr=False)

    def make(
        self,
        *,
        subject: str,
        organisation: str,
        scopes: Iterable[str],
        lifetime_s: float,
        limits: Limits,
        key_id: str | None,
    ) -> str:
        return mint(
            self.secret,
            subject=subject,
            organisation=organisation,
            scopes=scopes,
            lifetime_s=lifetime_s,
            limits=limits,
            key_id=key_id,
        )


class Authenticator:
    """Tokens and keys → principals. A verified token is remembered, so that the next request costs a look-up and a look
    at the clock; `clock` is in seconds since the epoch. Without `keys` there are tokens alone."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time, *, keys: KeyEntrance | None = None) -> None:
        self._secret = secret
        self._keys = keys
        self._clock = clock
        self._remembered: OrderedDict[str, Principal] = OrderedDict()

    async def from_header(self, header: str | None, address: str | None) -> Principal:
        """The principal of an `Authorization` header's value, from this address. Raises UnauthenticatedError, and
        ServiceUnavailableError for a key that can't be looked up."""
        if not header:
            raise UnauthenticatedError(
                "no token: send `Authorization: Bearer <token>`; `ai-middleware token` prints one"
            )
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("the Authorization header is not of the form `Bearer <token>`")
        token = token.strip()
        if token.startswith(KEY_PREFIX) and self._keys is not None:
            return await self._keys.principal(token, address)
        principal = self.principal(token)
        if principal.limits.networks is not None and not lies_in(address, principal.limits.networks):
            raise UnusableTokenError("the token may not be used from this address")
        return principal

    def principal(self, token: str, *, margin_s: float = 0.0) -> Principal:
        """Raises UnusableTokenError, also for a token that expires within `margin_s` seconds."""
        principal = self._remembered.get(token)
        if principal is None:
            principal = self._verify(token)
            self._remembered[token] = principal
            if len(self._remembered) > MAX_REMEMBERED:
                self._remembered.popitem(last=False)
        if principal.expires_at <= self._clock() + margin_s:
            self._remembered.pop(token, None)
            raise UnusableTokenError("the token has expired")
        return principal

    def _verify(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_LENGTH:
            raise UnusableTokenError("the token is too long")
        try:
            claims = jwt.decode(token.encode(errors="replace"), self._secret, algorithms=[ALGORITHM], options=_CHECKS)
        except jwt.InvalidSignatureError:
            raise UnusableTokenError("the token was signed with another secret") from None
        except jwt.ImmatureSignatureError:
            raise UnusableTokenError("the token is not valid yet") from None
        except jwt.MissingRequiredClaimError as error:
            raise UnusableTokenError(f"the token has no claim {error.claim!r}") from None
        except jwt.InvalidTokenError:
            raise UnusableTokenError("the token is not a valid JWT (HS256)") from None
        return _principal(claims)


def _principal(claims: dict[str, Any]) -> Principal:
    subject, organisation, scope, expiry = (claims[name] for name in _REQUIRED)
    if not (
        _is_name(subject)
        and _is_name(organisation)
        and isinstance(scope, str)
        and isinstance(expiry, int | float)
        and 0 < expiry < _LATEST_EXPIRY
    ):
        raise UnusableTokenError("the token's claims sub, org, scope and exp are not what they must be")
    limits, key_id = _limits(claims), claims.get("key")
    return Principal(
        subject,
        organisation,
        frozenset(scope.split()),
        float(expiry),
        limits=limits,
        key_id=key_id if isinstance(key_id, str) else None,
    )


def _limits(claims: dict[str, Any]) -> Limits:
    if not any(name in claims for name in _LISTS):
        return UNLIMITED
    lists: dict[str, tuple[str, ...] | None] = {}
    for name in _LISTS:
        given = claims.get(name)
        if given is not None and not (isinstance(given, list) and all(map(_is_name, given))):
            raise UnusableTokenError(f"the token's claim {name} is not a list of texts")
        lists[name] = None if given is None else tuple(given)
    return Limits(**lists)


def _is_name(claim: object) -> bool:
    """Text that can be stored: JSON's escapes can write half a character."""
    return isinstance(claim, str) and claim != "" and not any("\ud800" <= character <= "\udfff" for character in claim)
