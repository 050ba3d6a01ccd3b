"""Tokens: HS256 alone, four claims, an expiry that is looked at every time, and errors that repeat nothing."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import auth
from gateway.auth import Authenticator, mint
from gateway.claims import UnusableTokenError
from resolvers.errors import UnauthenticatedError
from resolvers.principal import Principal, Scope

SECRET = "a-signing-secret-of-more-than-32-bytes"
OTHER = "another-signing-secret-of-some-40-bytes"
LATER = 4_000_000_000  # the year 2096
CLAIMS = {"sub": "ada", "org": "acme", "scope": "completions:write usage:read", "exp": LATER}
HEADER = {"alg": "HS256", "typ": "JWT"}


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(claims: object = CLAIMS, header: object = HEADER, secret: str = SECRET, digest: str = "sha256") -> str:
    """A token that no library would make; `bytes` stand for themselves."""
    head, body = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    signed = f"{base64url(head)}.{base64url(body)}"
    return f"{signed}.{base64url(hmac.new(secret.encode(), signed.encode(), digest).digest())}"


def with_claims(**claims: Any) -> dict[str, Any]:
    return {**CLAIMS, **claims}


def refusal(token: str) -> str:
    with pytest.raises(UnusableTokenError) as caught:
        Authenticator(SECRET).principal(token)
    assert caught.value.code == "UNAUTHENTICATED"
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert len(caught.value.message.splitlines()) == 1
    return caught.value.message


def test_minted_tokens_serve() -> None:
    token = mint(SECRET, subject="ada", organisation="acme", scopes=[Scope.USAGE_READ], lifetime_s=60)
    principal = Authenticator(SECRET).principal(token)
    assert (principal.subject, principal.organisation) == ("ada", "acme")
    assert principal.scopes == {"usage:read"}
    assert time.time() < principal.expires_at <= time.time() + 60


@given(
    subject=st.text(st.characters(codec="utf-8"), min_size=1, max_size=100),
    organisation=st.text(st.characters(codec="utf-8"), min_size=1, max_size=100),
    scopes=st.lists(st.sampled_from(Scope), unique=True),
)
def test_who_a_token_names_is_who_is_asking(subject: str, organisation: str, scopes: list[Scope]) -> None:
    token = mint(SECRET, subject=subject, organisation=organisation, scopes=scopes, lifetime_s=60)
    principal = Authenticator(SECRET).principal(token)
    assert (principal.subject, principal.organisation, principal.scopes) == (subject, organisation, set(scopes))


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("", set()), (" ", set()), ("a", {"a"}), (" a  b a\tc\n", {"a", "b", "c"}), ("a,b", {"a,b"})],
)
def test_scopes_are_separated_by_spaces(scope: str, expected: set[str]) -> None:
    assert Authenticator(SECRET).principal(forged(with_claims(scope=scope))).scopes == expected


@pytest.mark.parametrize("claim", ["sub", "org"])
def test_names_are_bounded(claim: str) -> None:
    """In bytes: a ledger's index has room for so many."""
    assert Authenticator(SECRET).principal(forged(with_claims(**{claim: "語" * 170}))).expires_at == LATER
    assert "at most 512 bytes" in refusal(forged(with_claims(**{claim: "語" * 171})))


def test_forged_tokens_are_otherwise_good() -> None:
    """What the refusals below stand on: the same token without the flaw is taken."""
    assert Authenticator(SECRET).principal(forged()) == Principal(
        "ada", "acme", frozenset({"completions:write", "usage:read"}), float(LATER)
    )


HEADERS: dict[str, object] = {
    "none": {"alg": "none"},
    "None": {"alg": "None"},
    "null": {"alg": None},
    "no algorithm": {"typ": "JWT"},
    "RS256": {"alg": "RS256"},
    "RS256 with its key": {"alg": "RS256", "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
    "ES256": {"alg": "ES256"},
    "lower case": {"alg": "hs256"},
    "a list": {"alg": ["HS256"]},
    "an object": {"alg": {}},
    "unknown critical extension": {"alg": "HS256", "crit": ["exp2"], "exp2": 1},
    "crit of a wrong type": {"alg": "HS256", "crit": 5},
    "detached payload": {"alg": "HS256", "b64": False, "crit": ["b64"]},
    "kid of a wrong type": {"alg": "HS256", "kid": 5},
    "not an object": ["HS256"],
    "nested deeply": b"[" * 5000,
    "not JSON": b"\xff\xfe",
}


@pytest.mark.parametrize("case", HEADERS)
def test_only_plain_hs256(case: str) -> None:
    assert refusal(forged(header=HEADERS[case])) == "the token is not a valid JWT (HS256)"


def test_no_signature_is_no_token() -> None:
    unsigned = jwt.encode(CLAIMS, None, algorithm="none")
    assert "not a valid JWT" in refusal(unsigned)
    assert "not a valid JWT" in refusal(forged(header={"alg": "none"}).rpartition(".")[0] + ".")
    assert "another secret" in refusal(forged().rpartition(".")[0] + ".")


@pytest.mark.parametrize(("algorithm", "digest"), [("HS384", "sha384"), ("HS512", "sha512")])
def test_not_even_longer_digests(algorithm: str, digest: str) -> None:
    assert "not a valid JWT" in refusal(forged(header={"alg": algorithm}, digest=digest))


def test_another_secret() -> None:
    assert refusal(forged(secret=OTHER)) == "the token was signed with another secret"


def test_claims_under_another_signature() -> None:
    head, _, signature = forged().split(".")
    body = base64url(json.dumps(with_claims(org="victim")).encode())
    assert refusal(f"{head}.{body}.{signature}") == "the token was signed with another secret"


@pytest.mark.parametrize("claim", ["sub", "org", "scope", "exp"])
def test_a_missing_claim_is_named(claim: str) -> None:
    without = {name: value for name, value in CLAIMS.items() if name != claim}
    assert refusal(forged(without)) == f"the token has no claim '{claim}'"
    assert refusal(forged(with_claims(**{claim: None}))) == f"the token has no claim '{claim}'"


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": ""},
        {"sub": 5},
        {"sub": "half \ud83d"},
        {"org": "\udc00"},
        {"sub": ["ada"]},
        {"org": ""},
        {"org": 5},
        {"org": ["acme"]},
        {"scope": ["usage:read", 1]},
        {"scope": 1},
        {"exp": str(LATER)},
        {"exp": [LATER]},
        {"exp": True},
        {"exp": 0},
        {"exp": -1},
        {"exp": LATER * 1000},
        {"exp": 10**400},
        {"exp": float("nan")},
        {"exp": float("inf")},
    ],
    ids=lambda claims: str(claims)[:30],
)
def test_claims_of_a_wrong_kind(claims: Mapping[str, object]) -> None:
    refusal(forged(with_claims(**claims)))


@pytest.mark.parametrize("payload", [b"5", b"null", b"[]", b"{", b"", b"[" * 5000, b"\xff"], ids=repr)
def test_a_payload_that_holds_no_claims(payload: bytes) -> None:
    refusal(forged(payload))


def test_not_before_is_kept_to() -> None:
    assert refusal(forged(with_claims(nbf=LATER))) == "the token is not valid yet"
    assert Authenticator(SECRET).principal(forged(with_claims(nbf=1))).subject == "ada"


def test_a_mint_whose_clock_is_ahead_does_no_harm() -> None:
    assert Authenticator(SECRET).principal(forged(with_claims(iat=LATER))).subject == "ada"


def test_a_token_for_somebody_else() -> None:
    refusal(forged(with_claims(aud="another service")))


def test_an_expired_token() -> None:
    assert refusal(forged(with_claims(exp=1))) == "the token has expired"


def test_a_remembered_token_expires_too() -> None:
    now = LATER - 10.0
    authenticator = Authenticator(SECRET, clock=lambda: now)
    token = forged()
    assert authenticator.principal(token) is authenticator.principal(token), "remembered"
    now = LATER - 0.1
    assert authenticator.principal(token).subject == "ada"
    now = float(LATER)
    for _ in range(2):
        with pytest.raises(UnusableTokenError, match="expired"):
            authenticator.principal(token)


def test_margin() -> None:
    authenticator = Authenticator(SECRET, clock=lambda: LATER - 100.0)
    token = forged()
    assert authenticator.principal(token, margin_s=99).subject == "ada"
    with pytest.raises(UnusableTokenError, match="expired"):
        authenticator.principal(token, margin_s=100)
    assert authenticator.principal(token).subject == "ada", "a token that one caller found too short serves the next"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert auth.MAX_REMEMBERED == 10_000
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 20)
    authenticator = Authenticator(SECRET)
    tokens = [forged(with_claims(sub=f"subject-{number}")) for number in range(50)]
    for token in tokens:
        authenticator.principal(token)
    assert len(authenticator._remembered) == 20
    assert [authenticator.principal(token).subject for token in tokens] == [f"subject-{n}" for n in range(50)]


def test_refused_tokens_are_not_remembered() -> None:
    authenticator = Authenticator(SECRET)
    for number in range(10):
        for bad in (forged(secret=OTHER, claims=with_claims(sub=str(number))), "x" * number, forged({})):
            with pytest.raises(UnusableTokenError):
                authenticator.principal(bad)
    assert not authenticator._remembered


def test_a_long_token_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    token = forged(with_claims(padding="p" * 8192))
    monkeypatch.setattr(jwt, "decode", lambda *_, **__: pytest.fail("parsed"))
    assert refusal(token) == "the token is too long"


@given(token=st.text(st.characters(codec=None), max_size=200))
def test_what_is_no_token_is_refused_without_repeating_it(token: str) -> None:
    message = refusal(f"\u00bf{token}")
    assert "\u00bf" not in message


@given(st.tuples(st.binary(max_size=60), st.binary(max_size=60), st.binary(max_size=40)))
def test_what_looks_like_a_token_is_refused(parts: tuple[bytes, bytes, bytes]) -> None:
    refusal(".".join(base64url(part) for part in parts))


BAD = {
    "signature": forged(secret=OTHER),
    "expired": forged(with_claims(exp=1)),
    "no claims": forged({}),
    "changed": forged() + "x",
}


@pytest.mark.parametrize("case", BAD)
def test_errors_repeat_nothing_of_the_token(case: str) -> None:
    bad = BAD[case]
    message = refusal(bad)
    assert not any(part and part in message for part in bad.split("."))
    assert "ada" not in message.split()
    assert SECRET not in message


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {} "])
async def test_headers_that_carry_a_token(header: str) -> None:
    found = await Authenticator(SECRET).from_header(header.format(forged()), None)
    assert found.subject == "ada"


@pytest.mark.parametrize("header", [None, ""])
async def test_no_header_says_how_to_get_a_token(header: str | None) -> None:
    with pytest.raises(UnauthenticatedError, match="ai-middleware token"):
        await Authenticator(SECRET).from_header(header, None)


@pytest.mark.parametrize("header", ["{}", "Bearer", "Bearer ", "Bearer  ", "Basic {}", "Token {}", "Bearer,{}", " {}"])
async def test_headers_that_carry_none(header: str) -> None:
    given = header.format(forged())
    with pytest.raises(UnauthenticatedError) as caught:
        await Authenticator(SECRET).from_header(given, None)
    assert forged() not in caught.value.message
