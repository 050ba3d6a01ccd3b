"""The keys of an identity provider, by which its tokens are verified (RFC 7517): fetched, kept, and followed as they
are rotated. RS256 and ES256 alone (RFC 7518, 3.1)."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

from providers.errors import ProviderError
from providers.http import HttpTransport
from resolvers.beside import beside
from resolvers.errors import ServiceUnavailableError, UnauthenticatedError

ALGORITHMS = ("RS256", "ES256")
REFRESH_S = 600.0
RETRY_S = 30.0
"""Between two fetches for a key that is not known, whatever number of tokens name it; and after one that failed."""
USABLE_S = 24 * 3600.0
"""For so long the keys serve while nobody answers for them."""
FETCH_TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024
MAX_KEYS = 100
MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192  # RFC 7518, 3.3; and what verifies quickly

Fetch = Callable[[], Awaitable[bytes]]
"""Raises OSError."""

log = structlog.get_logger("jwks")


@dataclass(frozen=True, slots=True)
class VerifyingKey:
    """`numbers` say which key it is; two with the same are one. `public` is what verifies."""

    kid: str | None
    algorithm: str
    numbers: tuple[int, int]
    public: RSAPublicKey | EllipticCurvePublicKey = field(compare=False, repr=False)


class KeySet:
    """Opened by `open_key_set`. `clock` is monotonic, in seconds."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: frozenset[VerifyingKey] = frozenset()
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._trouble: str | None = "not fetched yet"
        self._trying: asyncio.Lock = asyncio.Lock()

    def holds(self, key: VerifyingKey) -> bool:
        """Whether it is one of the keys still: one that has been taken out verifies nothing from then on."""
        return key in self._keys and self._clock() < self._read_at + USABLE_S

    async def find(self, kid: str | None, algorithm: str) -> VerifyingKey:
        """One that is not known is fetched, if that has not just been done. A token without `kid` is of the one key
        that there is. Raises UnauthenticatedError, and ServiceUnavailableError while there are no keys."""
        found = self._known(kid, algorithm)
        if found is None:
            await self._fetch_anew()
            found = self._known(kid, algorithm)
        if found is not None:
            return found
        if self._clock() >= self._read_at + USABLE_S:
            raise ServiceUnavailableError("the identity provider's keys can't be had at the moment")
        raise UnauthenticatedError("the token was signed with a key that the identity provider does not have")

    async def refresh(self) -> None:
        """Again and again, before anybody has to wait for it."""
        while True:
            await self._read()
            await asyncio.sleep(REFRESH_S if self._trouble is None else RETRY_S)

    async def look(self) -> str | None:
        """What keeps it from its work, in a line; None where nothing does."""
        return self._trouble

    def _known(self, kid: str | None, algorithm: str) -> VerifyingKey | None:
        if self._clock() >= self._read_at + USABLE_S:
            return None
        fitting = [key for key in self._keys if key.algorithm == algorithm and kid in (None, key.kid)]
        return fitting[0] if len(fitting) == 1 else None

    async def _fetch_anew(self) -> None:
        async with self._trying:
            if self._clock() >= self._tried_at + RETRY_S:
                await self._read()

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                keys = frozenset(read_keys(await self._fetch()))
        except (OSError, ValueError, TimeoutError) as error:  # a TimeoutError is an OSError without a text
            trouble = str(error) or "no answer in time"
            if self._trouble != trouble:
                log.warning("the identity provider's keys can't be fetched", reason=trouble)
            self._trouble = trouble
        else:
            self._keys, self._read_at, self._trouble = keys, self._clock(), None


def read_keys(body: bytes) -> Sequence[VerifyingKey]:
    """Those of a key set that sign tokens by one of ALGORITHMS; others are passed over. Raises ValueError for what is
    no key set, or has none such."""
    try:
        keys = orjson.loads(body)["keys"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise ValueError("it is no JSON Web Key Set") from None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise ValueError(f"a key set has a list of at most {MAX_KEYS} keys")
    found = [key for key in map(_key, keys) if key is not None]
    if not found:
        raise ValueError("it has no key for RS256 or ES256")
    return found


def _key(given: Any) -> VerifyingKey | None:
    if (
        not isinstance(given, dict)
        or given.get("use", "sig") != "sig"
        or "verify" not in given.get("key_ops", ["verify"])
    ):
        return None
    kid = given.get("kid")
    algorithm = {"RSA": "RS256", "EC": "ES256"}.get(str(given.get("kty")))
    if algorithm is None or given.get("alg", algorithm) != algorithm or not isinstance(kid, str | None):
        return None
    try:
        return _rsa(kid, given) if algorithm == "RS256" else _ec(kid, given)
    except (KeyError, ValueError, TypeError, binascii.Error):
        return None


def _rsa(kid: str | None, given: Mapping[str, Any]) -> VerifyingKey | None:
    numbers = RSAPublicNumbers(_number(given["e"]), _number(given["n"]))
    if not MIN_RSA_BITS <= numbers.n.bit_length() <= MAX_RSA_BITS:
        return None
    return VerifyingKey(kid, "RS256", (numbers.n, numbers.e), numbers.public_key())


def _ec(kid: str | None, given: Mapping[str, Any]) -> VerifyingKey | None:
    if given.get("crv") != "P-256":
        return None
    numbers = EllipticCurvePublicNumbers(_number(given["x"]), _number(given["y"]), SECP256R1())
    return VerifyingKey(kid, "ES256", (numbers.x, numbers.y), numbers.public_key())


def _number(text: str) -> int:
    return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))


def fetching(transport: HttpTransport, url: str) -> Fetch:
    """Redirects are not followed."""

    async def fetch() -> bytes:
        try:
            body = b""
            async with transport.stream(
                url, headers={"accept": "application/json"}, body=None, provider="identity provider"
            ) as answer:
                if answer.status != 200:
                    raise OSError(f"HTTP {answer.status}")
                async for chunk in answer.chunks():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise OSError(f"a key set has at most {MAX_BYTES} bytes")
        except ProviderError as error:
            raise OSError(error.message) from None
        return body

    return fetch


@asynccontextmanager
async def open_key_set(fetch: Fetch, clock: Callable[[], float]) -> AsyncIterator[KeySet]:
    """Without its keys at first, which come at once where the identity provider answers."""
    key_set = KeySet(fetch, clock)
    async with beside("jwks", key_set.refresh):
        yield key_set
