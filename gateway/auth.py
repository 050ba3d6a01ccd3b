"""Tokens: JWT (RFC 7519), by this deployment's own secret (HS256) or by an identity provider's keys; and API keys. Its
own tokens' claims: `sub`, `org`, `scope`, `exp`; those that `mintToken` makes may have `models`, `configs`, `networks`
and `key`, too."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jwt
from jwt.types import Options

from resolvers.cache_counts import CacheCounts
from resolvers.errors import UnauthenticatedError
from resolvers.key_entrance import KeyEntrance, lies_in
from resolvers.principal import UNLIMITED, Limits, Principal

from .claims import LISTS, OURS, ClaimRules, UnusableTokenError, principal_of
from .jwks import ALGORITHMS, KeySet, VerifyingKey
from .key_forms import PREFIX as KEY_PREFIX

ALGORITHM = "HS256"
MAX_TOKEN_LENGTH = 8192
MAX_REMEMBERED = 10_000
LEEWAY_S = 30.0
"""How far an identity provider's clock may be ahead, for `nbf`. `exp` is by our own clock alone."""


def mint(
    secret: str,
    *,
    subject: str,
    organisation: str,
    scopes: Iterable[str],
    lifetime_s: float,
    limits: Limits = UNLIMITED,
    key_id: str | None = None,
    rules: ClaimRules = OURS,
) -> str:
    """A token that `Authenticator` takes under the same rules."""
    now = int(time.time())
    claims = {
        "sub": subject,
        "org": organisation,
        "scope": " ".join(scopes),
        "iat": now,
        "exp": now + int(lifetime_s),
        **{name: list(each) for name in LISTS if (each := getattr(limits, name)) is not None},
        **({} if key_id is None else {"key": key_id}),
        **({} if rules.issuer is None else {"iss": rules.issuer}),
        **({} if rules.audience is None else {"aud": rules.audience}),
    }
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


@dataclass(frozen=True, slots=True)
class TokenMint:
    """Implements `resolvers.tokens.TokenMaker`."""

    secret: str = field(repr=False)
    rules: ClaimRules = OURS

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
            rules=self.rules,
        )


@dataclass(frozen=True, slots=True)
class _Remembered:
    """`key`: the identity provider's that verified it."""

    principal: Principal
    key: VerifyingKey | None


class Authenticator:
    """Tokens and keys → principals. A verified token is remembered, so that the next request costs a look-up and a look
    at the clock; `clock` is in seconds since the epoch. Without `keys` there are tokens alone, without `key_set` those
    that are signed with the secret. `rules` are for both kinds; the secret's own tokens have this deployment's names
    for their claims."""

    def __init__(
        self,
        secret: str,
        clock: Callable[[], float] = time.time,
        *,
        rules: ClaimRules = OURS,
        keys: KeyEntrance | None = None,
        key_set: KeySet | None = None,
    ) -> None:
        self._secret = secret
        self._clock = clock
        self._rules = rules
        self._own_rules = ClaimRules(rules.issuer, rules.audience)
        self._keys = keys
        self._key_set = key_set
        self.counts = CacheCounts()
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()

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
        if self._known(token) is not None:
            self.counts.hits += 1
        else:
            self.counts.misses += 1
            if self._key_set is not None and _algorithm(token) in ALGORITHMS:
                await self._verify_by(self._key_set, token)
        principal = self.principal(token)
        await self.check_standing(principal, address)
        return principal

    async def check_standing(self, principal: Principal, address: str | None, what: str = "token") -> None:
        """Whether what was signed here for the principal opens, from this address, and its key still opens as much.
        Raises as `from_header`."""
        networks = principal.limits.networks
        if networks is not None and not lies_in(address, networks):
            raise UnusableTokenError(f"the {what} may not be used from this address")
        if principal.key_id is not None and self._keys is not None:
            await self._keys.check_maker(principal, principal.key_id)

    def principal(self, token: str, *, margin_s: float = 0.0) -> Principal:
        """Of a token that is known, or signed with the secret. Raises UnusableTokenError, also for a token that expires
        within `margin_s` seconds."""
        known = self._known(token)
        if known is None:
            claims = _claims(token, self._secret, ALGORITHM, self._own_rules)
            known = self._remember(token, principal_of(claims, self._own_rules), None)
        if known.principal.expires_at <= self._clock() + margin_s:
            self._remembered.pop(token, None)
            raise UnusableTokenError("the token has expired")
        return known.principal

    async def _verify_by(self, key_set: KeySet, token: str) -> None:
        kid = jwt.get_unverified_header(token).get("kid")  # which key to look for; the signature tells the rest
        algorithm = _algorithm(token)
        key = await key_set.find(kid if isinstance(kid, str) else None, algorithm)
        claims = _claims(token, key.public, algorithm, self._rules, leeway_s=LEEWAY_S)
        self._remember(token, principal_of(claims, self._rules, ours=False), key)

    def _known(self, token: str) -> _Remembered | None:
        known = self._remembered.get(token)
        if known is None or known.key is None:
            return known
        return known if self._key_set is not None and self._key_set.holds(known.key) else None

    def _remember(self, token: str, principal: Principal, key: VerifyingKey | None) -> _Remembered:
        known = self._remembered[token] = _Remembered(principal, key)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return known


def _algorithm(token: str) -> str:
    """What its header says. A token that is none has none."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise UnusableTokenError("the token is too long")
    try:
        return str(jwt.get_unverified_header(token.encode(errors="replace")).get("alg"))
    except jwt.InvalidTokenError:
        return ""


def _claims(token: str, key: Any, algorithm: str, rules: ClaimRules, *, leeway_s: float = 0.0) -> dict[str, Any]:
    """Of a token that is verified by this algorithm and no other."""
    if len(token) > MAX_TOKEN_LENGTH:
        raise UnusableTokenError("the token is too long")
    # `exp` is compared at each use, by our clock; `iat` is information, and the minting machine's clock may be ahead.
    checks: Options = {
        "require": rules.required,
        "verify_exp": False,
        "verify_iat": False,
        "verify_iss": rules.issuer is not None,
    }
    try:
        claims: dict[str, Any] = jwt.decode(
            token.encode(errors="replace"),
            key,
            algorithms=[algorithm],
            options=checks,
            audience=rules.audience,
            issuer=rules.issuer,
            leeway=leeway_s,
        )
    except jwt.InvalidSignatureError:
        raise UnusableTokenError(f"the token was signed with another {_SIGNED_WITH[algorithm]}") from None
    except jwt.ImmatureSignatureError:
        raise UnusableTokenError("the token is not valid yet") from None
    except jwt.MissingRequiredClaimError as error:
        raise UnusableTokenError(f"the token has no claim {error.claim!r}") from None
    except jwt.InvalidIssuerError:
        raise UnusableTokenError("the token is of another issuer") from None
    except jwt.InvalidAudienceError:
        raise UnusableTokenError("the token is for another audience") from None
    except jwt.InvalidTokenError:
        raise UnusableTokenError(f"the token is not a valid JWT ({algorithm})") from None
    return claims


_SIGNED_WITH = {ALGORITHM: "secret", **dict.fromkeys(ALGORITHMS, "key")}
