"""Tokens: JWT, HS256 (RFC 7519). Claims: `sub`, `org`, `scope` (names separated by spaces, RFC 8693, 4.2), `exp`."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jwt
from jwt.types import Options

from resolvers.errors import UnauthenticatedError
from resolvers.principal import Principal, Scope

ALGORITHM = "HS256"
MAX_TOKEN_LENGTH = 8192
MAX_REMEMBERED = 10_000
_REQUIRED = ["sub", "org", "scope", "exp"]
_LATEST_EXPIRY = 253_402_300_800  # the year 10000: milliseconds, infinity and NaN are no times
# `exp` is compared at each use, by our clock; `iat` is information, and the minting machine's clock may be ahead.
_CHECKS: Options = {"require": _REQUIRED, "verify_exp": False, "verify_iat": False}


class UnusableTokenError(UnauthenticatedError):
    """A token that is malformed, forged or expired. Says which, and nothing of its content."""


def mint(secret: str, *, subject: str, organisation: str, scopes: Sequence[Scope], lifetime_s: float) -> str:
    now = int(time.time())
    claims = {
        "sub": subject,
        "org": organisation,
        "scope": " ".join(scope.value for scope in scopes),
        "iat": now,
        "exp": now + int(lifetime_s),
    }
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


class Authenticator:
    """Tokens → principals. A verified token is remembered, so that the next request costs a look-up and a look at the
    clock; `clock` is in seconds since the epoch."""

    def __init__(self, secret: str, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock
        self._remembered: OrderedDict[str, Principal] = OrderedDict()

    def from_header(self, header: str | None) -> Principal:
        """The principal of an `Authorization` header's value. Raises UnauthenticatedError."""
        if not header:
            raise UnauthenticatedError(
                "no token: send `Authorization: Bearer <token>`; `ai-middleware token` prints one"
            )
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise UnauthenticatedError("the Authorization header is not of the form `Bearer <token>`")
        return self.principal(token.strip())

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
    return Principal(subject, organisation, frozenset(scope.split()), float(expiry))


def _is_name(claim: object) -> bool:
    """Text that can be stored: JSON's escapes can write half a character."""
    return isinstance(claim, str) and claim != "" and not any("\ud800" <= character <= "\udfff" for character in claim)
