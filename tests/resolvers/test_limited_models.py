"""Limits of a model, which may be called by several names."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from persistence.limit_records import Limited
from resolvers.errors import RateLimitedError
from resolvers.limit_cache import counts_for
from resolvers.types import Target
from tests.persistence.entries import entry
from tests.persistence.limits import limit_rule

from .scene import ACME, Scene, texts, unavailable
from .test_limits import limit, refusal


async def test_a_model_s_limit_holds_under_whatever_name_it_is_routed_by(scene: Scene) -> None:
    """Also at a declared provider. One of a single name counts that name alone; a variant that is a model of its own
    has its own."""
    cache = scene.services.limits.cache
    limit(scene, limited=Limited.MODEL, name="openrouter/z/m", requests_per_minute=1)
    limit(scene, limited=Limited.MODEL, name="openrouter/z/m:nitro", requests_per_minute=1)
    limit(scene, limited=Limited.MODEL, name="alpha/m", requests_per_minute=1)
    rules = await cache.rules("acme")

    def names(provider: str, model: str) -> list[str]:
        return sorted(rule.name for rule in rules.applying(None, provider, model))

    plain, quick = "openrouter/z/m", "openrouter/z/m:nitro"
    assert names("openrouter", "z/m") == [plain]
    assert names("openrouter", "z/m:floor") == names("openrouter", "z/m:nitro:online") == [plain]
    assert names("openrouter", "z/m:nitro") == [plain, quick]
    assert names("openrouter", "z/m:free") == []
    assert names("alpha", "m:nitro") == ["alpha/m"]


async def test_a_budget_begins_with_what_was_spent_under_each_of_a_model_s_names(scene: Scene) -> None:
    limit(scene, limited=Limited.MODEL, name="openrouter/z/m", usd_per_day=Decimal(1_000))
    now = datetime.now(UTC)
    for number, model in enumerate(["z/m", "z/m:nitro", "z/m:free", "z/n"]):
        booked = entry(time=now, completion_id=f"cmp_{number}", provider="openrouter", model=model, cost=Decimal(10))
        await scene.services.ledger.book(booked)
    (state,) = await scene.services.limit_rules.states_for(ACME)
    assert state.used == 20


async def test_a_completion_is_one_request_to_a_provider_whatever_its_models(scene: Scene) -> None:
    limit(scene, limited=Limited.MODEL, name="alpha/*", requests_per_minute=1)
    scene.alpha.will([unavailable(retryable=False)], texts("hi"))
    found = await scene.complete(fallbacks=(Target("alpha", "a-2"),))
    assert [each.model for each in found.attempts] == ["a-1", "a-2"]
    await refusal(scene, RateLimitedError)


def test_a_name_and_what_it_stands_for_count_once_for_one_rule() -> None:
    rule = limit_rule(limited=Limited.MODEL, name="openrouter/z/m")
    assert counts_for(rule, "openrouter", "z/m:nitro")
    assert not counts_for(rule, "openrouter", "z/m:free")
