"""An identity provider for tests: keys, the tokens that they sign, and a server for the key set."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

ISSUER, AUDIENCE = "https://idp.example/", "ai-middleware"
LATER = 4_000_000_000  # the year 2096
CLAIMS = {"sub": "ada", "org": "acme", "scope": "completions:write", "iss": ISSUER, "aud": AUDIENCE, "exp": LATER}

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    kid: str | None
    private: Private

    @property
    def algorithm(self) -> str:
        return "RS256" if isinstance(self.private, rsa.RSAPrivateKey) else "ES256"

    def public(self, **changes: Any) -> dict[str, Any]:
        """As a JSON Web Key."""
        key = {"kid": self.kid, "use": "sig"} if self.kid is not None else {"use": "sig"}
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = self.private.public_key().public_numbers()
            return {**key, "kty": "RSA", "n": text(numbers.n), "e": text(numbers.e), **changes}
        point = self.private.public_key().public_numbers()
        size = (self.private.key_size + 7) // 8
        curve = {256: "P-256", 384: "P-384"}[self.private.key_size]
        return {**key, "kty": "EC", "crv": curve, "x": text(point.x, size), "y": text(point.y, size), **changes}

    def token(self, **claims: Any) -> str:
        """A claim that is None is left out."""
        given = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
        return jwt.encode(
            given, self.private, algorithm=self.algorithm, headers=None if self.kid is None else {"kid": self.kid}
        )


def rsa_pair(kid: str | None = "r1", bits: int = 2048) -> Pair:
    return Pair(kid, rsa.generate_private_key(65537, bits))


def ec_pair(kid: str | None = "e1", curve: type[ec.EllipticCurve] = ec.SECP256R1) -> Pair:
    return Pair(kid, ec.generate_private_key(curve()))


def text(number: int, size: int | None = None) -> str:
    data = number.to_bytes(size or (number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Identity:
    """Serves `keys`, or `body` as it is. `fetches` counts who asked."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    body: bytes | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fetches: int = 0
    url: str = ""

    async def handle(self, _: web.BaseRequest) -> web.Response:
        self.fetches += 1
        body = orjson.dumps({"keys": self.keys}) if self.body is None else self.body
        return web.Response(body=body, status=self.status, headers=self.headers)


@asynccontextmanager
async def running_identity(*pairs: Pair) -> AsyncIterator[Identity]:
    identity = Identity([pair.public() for pair in pairs])
    runner = web.ServerRunner(web.Server(identity.handle))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        identity.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
        yield identity
    finally:
        await runner.cleanup()
