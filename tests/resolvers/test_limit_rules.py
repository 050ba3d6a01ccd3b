"""Limits as they are set: what is refused, and who sees them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from persistence.key_records import Grant
from persistence.limit_records import Limited
from resolvers import limit_rules as module
from resolvers.api_keys import NewKey
from resolvers.errors import BadUserInputError, NotFoundError
from resolvers.limit_rules import MAX_COUNT, MAX_TOKENS, NewLimits
from resolvers.principal import Role, scopes_of

from .scene import ACME, GLOBEX, Scene

GRANT = Grant(roles=(Role.CALLER,))
ADMIN = replace(ACME, scopes=scopes_of(GRANT.scopes, GRANT.roles))


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, None),
        ({"api_key": "key_1", "model": "alpha/a-1", "streams": 1}, "model"),
        ({"model": "a-1", "streams": 1}, "model"),
        ({"model": "alpha/a 1", "streams": 1}, "model"),
        ({"model": "alpha/a\x001", "streams": 1}, "model"),
        ({"model": f"alpha/{'a' * 257}", "streams": 1}, "model"),
        ({"model": "alhpa/*", "streams": 1}, "model"),
        ({"streams": -1}, "streams"),
        ({"requests_per_minute": MAX_COUNT + 1}, "requestsPerMinute"),
        ({"tokens_per_minute": MAX_TOKENS + 1}, "tokensPerMinute"),
        ({"usd_per_day": Decimal("-0.01")}, "usdPerDay"),
        ({"usd_per_day": Decimal("9000000.01")}, "usdPerDay"),
        ({"usd_per_month": Decimal("0.0000000001")}, "usdPerMonth"),
    ],
)
async def test_what_is_no_limit_is_refused(scene: Scene, asked: dict[str, Any], field: str | None) -> None:
    with pytest.raises(BadUserInputError) as refused:
        await scene.services.limit_rules.put(ACME, NewLimits(**asked))
    assert refused.value.path == (("input",) if field is None else ("input", field))
    assert not scene.limits.rules


async def test_a_key_that_the_organisation_does_not_have_is_not_limited(scene: Scene) -> None:
    _, key = await scene.services.api_keys.create(ADMIN, NewKey("A server", GRANT))
    rules, asked = scene.services.limit_rules, NewLimits(api_key=key.id, streams=1)
    for name in (key.id, f"key_{'0' * 32}", "key_{}", ""):
        with pytest.raises(NotFoundError, match="no such API key"):
            await rules.put(GLOBEX, replace(asked, api_key=name))
    assert not scene.limits.rules
    assert (await rules.put(ACME, asked)).name == key.id
    seen = [await rules.states_for(replace(ACME, key_id=each)) for each in (key.id, "key_other", None)]
    assert [len(each) for each in seen] == [1, 0, 0], "whose limit it is sees it"
    with pytest.raises(NotFoundError):
        await rules.remove(GLOBEX, key.id, None)
    assert await rules.remove(ACME, key.id, None) == (Limited.API_KEY, key.id)
    with pytest.raises(NotFoundError):
        await rules.remove(ACME, key.id, None)


async def test_an_organisation_has_so_many_at_most_and_changes_those_it_has(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_RULES", 2)
    rules = scene.services.limit_rules
    for name in ("alpha/*", "beta/*", "alpha/*"):
        await rules.put(ACME, NewLimits(model=name, streams=1))
    with pytest.raises(BadUserInputError, match="at most 2 limited keys and models"):
        await rules.put(ACME, NewLimits(streams=1))
    await rules.put(GLOBEX, NewLimits(streams=1))
