"""Minted tokens: narrower than their maker, and short."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from math import inf

import pytest

from gateway.auth import Authenticator, TokenMint
from persistence.key_records import Grant
from persistence.ports import AuditStore
from resolvers.audit import AuditLog
from resolvers.errors import BadUserInputError, ForbiddenError, UnauthenticatedError
from resolvers.principal import Limits, Principal, Role, Scope, scopes_of
from resolvers.tokens import MintedToken, mint_token
from tests.persistence.audit import MemoryAuditLog
from tests.persistence.entries import NOON

SECRET = "a-signing-secret-of-more-than-32-bytes"
MAKER = Principal("key_1", "acme", scopes_of((), [Role.DEVELOPER]), inf, Limits(models=("openai/*",)), key_id="key_1")
CALLS = Grant(scopes=("completions:write",), models=("openai/gpt-4.1",))


async def minted(
    grant: Grant = CALLS, *, maker: Principal = MAKER, lifetime_s: int = 900, log: AuditStore | None = None
) -> MintedToken:
    audit = AuditLog(log or MemoryAuditLog())
    now = partial(datetime.now, NOON.tzinfo)
    return await mint_token(TokenMint(SECRET), audit, maker, grant, lifetime_s=lifetime_s, now=now)


async def principal(token: str, address: str | None = None) -> Principal:
    return await Authenticator(SECRET).from_header(f"Bearer {token}", address)


async def test_what_it_says_is_what_it_opens() -> None:
    token = await minted(replace(CALLS, configs=("a",), networks=("10.0.0.0/8",)))
    found = await principal(token.token, "10.1.1.1")
    assert found == Principal(
        "key_1",
        "acme",
        frozenset({"completions:write"}),
        token.expires_at.timestamp(),
        Limits(("openai/gpt-4.1",), ("a",), ("10.0.0.0/8",)),
        key_id="key_1",
    )
    with pytest.raises(UnauthenticatedError, match="address"):
        await principal(token.token, "11.1.1.1")


@pytest.mark.parametrize(
    "grant",
    [
        Grant(scopes=("usage:write",), models=("openai/x",)),
        Grant(roles=("admin",), models=("openai/x",)),
        Grant(scopes=("completions:write",)),
        Grant(scopes=("completions:write",), models=("mistral/x",)),
    ],
)
async def test_it_may_do_no_more_than_its_maker(grant: Grant) -> None:
    with pytest.raises(ForbiddenError):
        await minted(grant)


async def test_it_makes_neither_tokens_nor_keys() -> None:
    maker = replace(MAKER, scopes=frozenset(Scope), limits=Limits())
    found = await principal((await minted(Grant(roles=("admin",)), maker=maker)).token)
    assert found.scopes == frozenset(Scope) - {Scope.TOKENS_MINT, Scope.KEYS_WRITE}
    with pytest.raises(ForbiddenError):
        await minted(Grant(scopes=("tokens:mint",)), maker=maker)


@pytest.mark.parametrize("lifetime_s", [59, 3601, -1])
async def test_it_lives_shortly(lifetime_s: int) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await minted(lifetime_s=lifetime_s)
    assert caught.value.path == ("input", "lifetimeSeconds")


async def test_it_does_not_outlive_its_maker() -> None:
    ends = (datetime.now(NOON.tzinfo) + timedelta(seconds=100)).timestamp()
    assert (await minted(maker=replace(MAKER, expires_at=ends))).expires_at.timestamp() <= ends
