"""An identity provider's tokens: by its keys as they are now, for us and from it, and by no trick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway import jwks
from gateway.auth import Authenticator, mint
from gateway.claims import ClaimRules
from gateway.jwks import REFRESH_S, RETRY_S, USABLE_S, KeySet, fetching, read_keys
from providers.http import open_transport
from resolvers.errors import ServiceUnavailableError, UnauthenticatedError
from resolvers.principal import SCOPES_OF, Principal, Role

from .identity import AUDIENCE, CLAIMS, ISSUER, LATER, Identity, Pair, ec_pair, rsa_pair, running_identity

SECRET = "a-signing-secret-of-more-than-32-bytes"
RULES = ClaimRules(ISSUER, AUDIENCE)
RSA, EC, OTHER = rsa_pair(), ec_pair(), rsa_pair("r2")


class Door:
    """An authenticator with a key set from a real server, on a clock that the test turns."""

    def __init__(self, identity: Identity, transport: Any, rules: ClaimRules = RULES) -> None:
        self.time = 0.0
        self.identity = identity
        self.key_set = KeySet(fetching(transport, identity.url), lambda: self.time)
        self._authenticator = Authenticator(SECRET, rules=rules, key_set=self.key_set)

    async def principal(self, token: str) -> Principal:
        return await self._authenticator.from_header(f"Bearer {token}", None)

    async def refusal(self, token: str) -> str:
        with pytest.raises(UnauthenticatedError) as caught:
            await self.principal(token)
        assert not any(part and part in caught.value.message for part in token.split("."))
        return caught.value.message


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with running_identity(RSA, EC) as identity, open_transport() as transport:
        yield Door(identity, transport)


@pytest.mark.parametrize("pair", [RSA, EC], ids=lambda pair: pair.algorithm)
async def test_a_good_token_serves_and_its_keys_are_fetched_once(door: Door, pair: Pair) -> None:
    principal = await door.principal(pair.token())
    assert principal == Principal("ada", "acme", frozenset({"completions:write"}), LATER)
    for number in range(3):
        await door.principal(pair.token(sub=f"ada-{number}"))
    assert door.identity.fetches == 1


async def test_own_tokens_serve_beside_them(door: Door) -> None:
    token = mint(SECRET, subject="x", organisation="acme", scopes=["usage:read"], lifetime_s=60, rules=RULES)
    assert (await door.principal(token)).subject == "x"
    without = mint(SECRET, subject="x", organisation="acme", scopes=["usage:read"], lifetime_s=60)
    assert await door.refusal(without) in ("the token has no claim 'iss'", "the token has no claim 'aud'")
    assert door.identity.fetches == 0


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"iss": "https://another.example/"}, "another issuer"),
        ({"iss": None}, "no claim 'iss'"),
        ({"aud": "another"}, "another audience"),
        ({"aud": ["another", "third"]}, "another audience"),
        ({"aud": None}, "no claim 'aud'"),
        ({"sub": None}, "no claim 'sub'"),
        ({"org": None}, "no claim 'org'"),
        ({"scope": None}, "no claim 'scope'"),
        ({"exp": None}, "no claim 'exp'"),
        ({"exp": 1}, "expired"),
        ({"nbf": LATER - 1}, "not valid yet"),
        ({"scope": {"a": 1}}, "neither a text nor a list"),
        ({"org": 7}, "not what they must be"),
    ],
)
async def test_what_a_token_must_say(door: Door, claims: dict[str, Any], told: str) -> None:
    assert told in await door.refusal(RSA.token(**claims))


async def test_an_audience_among_others(door: Door) -> None:
    assert (await door.principal(RSA.token(aud=["another", AUDIENCE]))).subject == "ada"


async def test_its_own_names_for_claims() -> None:
    rules = ClaimRules(ISSUER, AUDIENCE, organisation="https://us.example/org", scope="scp", roles="roles")
    async with running_identity(RSA) as identity, open_transport() as transport:
        door = Door(identity, transport, rules)
        named: dict[str, Any] = {"https://us.example/org": "globex", "org": "acme"}
        listed = await door.principal(RSA.token(**named, scp=["usage:read", "a"], roles=["caller", "Admin"]))
        assert (listed.organisation, listed.scopes) == (
            "globex",
            {"usage:read", "a", *SCOPES_OF[Role.CALLER]},
        )
        assert (await door.principal(RSA.token(**named))).scopes == set(), "neither of them"


async def test_it_can_t_pass_for_one_of_ours(door: Door) -> None:
    """Nor for a key's, whose claims it does not have to give."""
    principal = await door.principal(RSA.token(key="key_1", models=["openai/*"]))
    assert (principal.key_id, principal.limits.models) == (None, None)


async def test_signed_with_the_public_key_as_a_secret(door: Door) -> None:
    await door.principal(RSA.token())
    pem = RSA.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = jwt.utils.base64url_encode(orjson.dumps({"alg": "HS256", "kid": "r1"})).decode()
    body = jwt.utils.base64url_encode(orjson.dumps(CLAIMS)).decode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{header}.{body}".encode(), pem)
    forged = f"{header}.{body}.{jwt.utils.base64url_encode(signature).decode()}"
    assert await door.refusal(forged) == "the token was signed with another secret"


async def test_signed_by_nobody(door: Door) -> None:
    for algorithm in ("none", "None", "RS512", "PS256", "ES384", "HS512"):
        header = jwt.utils.base64url_encode(orjson.dumps({"alg": algorithm, "kid": "r1"})).decode()
        body = jwt.utils.base64url_encode(orjson.dumps(CLAIMS)).decode()
        assert await door.refusal(f"{header}.{body}.") == "the token is not a valid JWT (HS256)"


async def test_signed_by_another_key_of_the_same_name(door: Door) -> None:
    assert await door.refusal(rsa_pair("r1").token()) == "the token was signed with another key"
    assert await door.refusal(ec_pair("e1").token()) == "the token was signed with another key"
    assert "does not have" in await door.refusal(ec_pair("r1").token()), "of the other kind"


async def test_a_new_key_serves_at_once_and_a_lost_one_no_more(door: Door) -> None:
    first = RSA.token()
    await door.principal(first)
    door.identity.keys = [EC.public(), OTHER.public()]
    door.time += RETRY_S
    assert (await door.principal(OTHER.token())).subject == "ada"
    assert "does not have" in await door.refusal(first), "though it was verified before"
    assert "does not have" in await door.refusal(RSA.token(sub="bob"))


async def test_a_flood_of_unknown_keys_is_one_fetch(door: Door) -> None:
    await door.principal(RSA.token())
    door.time += RETRY_S
    tokens = [Pair(f"made-up-{number}", OTHER.private).token() for number in range(50)]
    refusals = await asyncio.gather(*(door.refusal(token) for token in tokens))
    assert set(refusals) == {"the token was signed with a key that the identity provider does not have"}
    assert door.identity.fetches == 2
    await door.principal(RSA.token(sub="bob"))


async def test_a_token_without_a_name_is_of_the_one_key(door: Door) -> None:
    nameless = Pair(None, RSA.private)
    assert (await door.principal(nameless.token())).subject == "ada"
    door.identity.keys = [RSA.public(), OTHER.public()]
    door.time += RETRY_S
    await door.refusal(Pair("unknown", OTHER.private).token())
    assert "does not have" in await door.refusal(nameless.token(sub="bob"))


async def test_while_the_identity_provider_is_away(door: Door) -> None:
    await door.principal(RSA.token())
    assert await door.key_set.look() is None
    door.identity.status = 503
    door.time += RETRY_S
    await door.refusal(Pair("unknown", OTHER.private).token())
    assert await door.key_set.look() == "HTTP 503"
    door.time = USABLE_S - 1
    await door.principal(RSA.token(sub="bob"))
    door.time = USABLE_S
    for token in (RSA.token(), RSA.token(sub="carol")):
        with pytest.raises(ServiceUnavailableError):
            await door.principal(token)


async def test_before_it_was_ever_there(door: Door) -> None:
    door.identity.status = 500
    with pytest.raises(ServiceUnavailableError):
        await door.principal(RSA.token())
    door.identity.status = 200
    door.time += RETRY_S
    await door.principal(RSA.token())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"body": b"{"}, "no JSON Web Key Set"),
        ({"body": b"[]"}, "no JSON Web Key Set"),
        ({"body": b'{"keys": {}}'}, "a list of at most"),
        ({"body": orjson.dumps({"keys": [RSA.public()] * 101})}, "a list of at most"),
        ({"body": b'{"keys": []}'}, "no key for RS256 or ES256"),
        ({"body": b"x" * (jwks.MAX_BYTES + 1)}, "at most 262144 bytes"),
        ({"status": 302, "headers": {"location": "/elsewhere"}}, "HTTP 302"),
        ({"status": 404}, "HTTP 404"),
    ],
)
async def test_what_is_no_key_set_is_told_and_the_keys_before_it_serve(
    door: Door, changes: dict[str, Any], told: str
) -> None:
    await door.principal(RSA.token())
    for name, value in changes.items():
        setattr(door.identity, name, value)
    door.time += RETRY_S
    await door.refusal(Pair("unknown", OTHER.private).token())
    assert told in (await door.key_set.look() or "")
    assert door.identity.fetches == 2, "redirects are not followed"
    await door.principal(RSA.token(sub="bob"))


@pytest.mark.parametrize(
    "given",
    [
        RSA.public(use="enc"),
        RSA.public(key_ops=["sign"]),
        RSA.public(alg="RS512"),
        RSA.public(kid=7),
        RSA.public(n="!"),
        RSA.public(e=7),
        {"kty": "RSA"},
        EC.public(alg="RS256"),
        EC.public(x=EC.public()["y"]),
        ec_pair(curve=ec.SECP384R1).public(),
        rsa_pair(bits=1024).public(),
        RSA.public(n="_" * 1400),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "r1"},
        "no key",
        None,
    ],
)
def test_keys_that_are_none_for_us_are_passed_over(given: Any) -> None:
    found = read_keys(orjson.dumps({"keys": [given, OTHER.public()]}))
    assert [key.kid for key in found] == ["r2"]


async def test_keys_are_refreshed_before_anybody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "REFRESH_S", 0.05)
    assert REFRESH_S > 60
    async with running_identity(RSA) as identity, open_transport() as transport:
        loop = asyncio.get_running_loop()
        async with jwks.open_key_set(fetching(transport, identity.url), loop.time) as key_set, asyncio.timeout(10):
            while identity.fetches < 3:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
            assert await key_set.look() is None


async def test_one_that_says_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT_S", 0.1)

    async def silent() -> bytes:
        await asyncio.Event().wait()
        return b""

    key_set = KeySet(silent, lambda: 0.0)
    with pytest.raises(ServiceUnavailableError):
        await key_set.find("r1", "RS256")
    assert await key_set.look() == "no answer in time"
