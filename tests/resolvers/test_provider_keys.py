"""Calls go by the organisation's own key where it has one, and by nobody else's."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from providers.types import Finished, FinishReason, TextDelta, Usage
from resolvers.errors import BadUserInputError, NotFoundError, ServiceUnavailableError
from resolvers.provider_keys import FRESH_S, TRIAL_INTERVAL_S, USABLE_S
from tests.persistence.audit import noted
from tests.persistence.provider_keys import MemoryProviderKeys

from .scene import ACME, GLOBEX, Scene

KEY = "sk-acme-secret-1234"
HI = [(TextDelta("hi"),), (Finished(FinishReason.STOP, usage=Usage(1, 1)),)]


def store_of(scene: Scene) -> MemoryProviderKeys:
    return cast("MemoryProviderKeys", scene.services.provider_keys.store)


async def keys_used(scene: Scene, *principals: object) -> list[str]:
    scene.alpha.will(*[HI] * len(principals))
    before = len(scene.alpha.calls)
    for principal in principals:
        await scene.complete(principal)  # type: ignore[arg-type]
    return [call.key for call in scene.alpha.calls[before:]]


async def test_an_organisation_s_calls_go_by_its_own_key_and_no_other_s_do(scene: Scene) -> None:
    keys = scene.services.provider_keys
    assert await keys_used(scene, ACME, GLOBEX) == ["secret", "secret"]
    stored = await keys.put(ACME, "alpha", f" {KEY}\n")
    assert (stored.hint, stored.created_by) == ("1234", ACME.subject)
    assert await keys_used(scene, ACME, GLOBEX) == [KEY, "secret"]
    scene.alpha.will(HI)
    assert len([event async for event in scene.stream()]) > 1
    assert scene.alpha.calls[-1].key == KEY
    await keys.delete(ACME, "alpha")
    assert await keys_used(scene, ACME) == ["secret"]
    with pytest.raises(NotFoundError):
        await keys.delete(ACME, "alpha")


async def test_the_key_is_nowhere_to_be_read(scene: Scene) -> None:
    keys = scene.services.provider_keys
    await keys.put(ACME, "alpha", KEY)
    assert KEY not in f"{store_of(scene).keys}{await keys.listed(ACME)}{scene.services!r}"


async def test_a_provider_that_the_deployment_can_t_call_by_itself(scene: Scene) -> None:
    own = replace(scene.services, vendors={"beta": scene.services.vendors["beta"]})
    scene = replace(scene, services=own)
    with pytest.raises(BadUserInputError, match="alpha"):
        await scene.complete()
    await scene.services.provider_keys.put(ACME, "alpha", KEY)
    assert await keys_used(scene, ACME) == [KEY]
    with pytest.raises(BadUserInputError, match="alpha"):
        await scene.complete(GLOBEX)


@pytest.mark.parametrize(
    ("provider", "key", "path"),
    [
        ("gamma", KEY, ("input", "provider")),
        ("alpha", "short", ("input", "key")),
        ("alpha", "with a space", ("input", "key")),
        ("alpha", "x" * 1001, ("input", "key")),
        ("alpha", "schlüssel-mit-umlaut", ("input", "key")),
        ("alpha", "two\nlines-of-it", ("input", "key")),
    ],
)
async def test_what_is_no_key(scene: Scene, provider: str, key: str, path: tuple[str, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await scene.services.provider_keys.put(ACME, provider, key)
    assert caught.value.path == path
    assert key not in caught.value.message


async def test_a_key_that_does_not_open_is_nobody_s(scene: Scene) -> None:
    """Sealed by another deployment, or moved there from another organisation: nobody else's key takes its place."""
    keys = scene.services.provider_keys
    stolen = await keys.put(GLOBEX, "alpha", KEY)
    await store_of(scene).put(replace(stolen, organisation="acme"), audit=noted)
    keys.outdate("acme")
    with pytest.raises(BadUserInputError, match="alpha"):
        await scene.complete(ACME)
    assert scene.alpha.calls == []


async def test_the_store_is_read_seldom(scene: Scene) -> None:
    await keys_used(scene, ACME, ACME, ACME)
    assert store_of(scene).reads == 1
    await asyncio.sleep(FRESH_S)
    await keys_used(scene, ACME, ACME)
    assert store_of(scene).reads == 2


async def test_while_the_store_is_away(scene: Scene) -> None:
    keys, store = scene.services.provider_keys, store_of(scene)
    await keys.put(ACME, "alpha", KEY)
    await keys_used(scene, ACME)
    store.down = True
    for _ in range(int(USABLE_S / TRIAL_INTERVAL_S) - 1):
        await asyncio.sleep(TRIAL_INTERVAL_S)
        assert await keys_used(scene, ACME) == [KEY]
    assert await keys_used(scene, GLOBEX) == ["secret"], "of whom nothing is known"
    for attempt in (keys.put(ACME, "alpha", KEY), keys.delete(ACME, "alpha"), keys.listed(ACME)):
        with pytest.raises(ServiceUnavailableError):
            await attempt
    await asyncio.sleep(2 * TRIAL_INTERVAL_S)
    with pytest.raises(ServiceUnavailableError):
        await scene.complete(ACME)
    assert await keys_used(scene, GLOBEX) == ["secret"]
    store.down = False
    assert await keys_used(scene, ACME) == [KEY]


async def test_circuits_tell_them_apart(scene: Scene) -> None:
    """A circuit that one organisation's key has opened stops no other's calls."""
    await scene.services.provider_keys.put(ACME, "alpha", KEY)
    await keys_used(scene, ACME, GLOBEX)
    own = await scene.services.vendors_of(ACME)
    assert [key.id for key in own["alpha"].keys.keys] == ["own:acme"]
