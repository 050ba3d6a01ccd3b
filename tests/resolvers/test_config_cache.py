"""Configs at hand for completions: read seldom, followed where others write, outliving a store that is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from resolvers import config_cache
from resolvers.config_cache import FRESH_S, TRIAL_INTERVAL_S, USABLE_S
from resolvers.errors import BadUserInputError, ServiceUnavailableError
from resolvers.types import ConfigBy, ConfigCall, ConfigRef
from tests.persistence.audit import noted

from .config_stage import CONTENT, GREET, Stage
from .scene import ACME


async def test_completions_are_served_from_the_cache(stage: Stage) -> None:
    await stage.published()
    before = stage.store.reads
    for _ in range(5):
        await stage.prompt()
    assert stage.store.reads == before + 1
    stage.seconds += FRESH_S
    await stage.prompt()
    assert stage.store.reads == before + 2


async def test_another_process_s_write_is_seen_after_a_moment(stage: Stage) -> None:
    made = await stage.published()
    await stage.prompt()
    await stage.store.archive("acme", made.id, made.updated_at, expected_revision=2, at=made.updated_at, audit=noted)
    await stage.prompt()
    stage.seconds += FRESH_S
    with pytest.raises(BadUserInputError, match="archived"):
        await stage.prompt()


async def test_without_the_store_known_configs_serve_for_a_while(stage: Stage) -> None:
    await stage.published()
    await stage.prompt()
    stage.store.down = True
    stage.seconds += USABLE_S - 1
    assert await stage.prompt() == "You speak English."
    with pytest.raises(ServiceUnavailableError):
        await stage.configs.resolve(ACME, ConfigCall(ConfigRef("unseen")))
    stage.seconds += 1
    with pytest.raises(ServiceUnavailableError):
        await stage.prompt()


async def test_without_the_store_nobody_waits_for_a_trial_but_one(stage: Stage) -> None:
    await stage.published()
    await stage.prompt()
    stage.store.down = True
    stage.seconds += FRESH_S
    reads = stage.store.reads
    for _ in range(5):
        await stage.prompt()
    assert stage.store.reads == reads + 1
    stage.seconds += TRIAL_INTERVAL_S
    await stage.prompt()
    assert stage.store.reads == reads + 2


async def test_while_one_reads_anew_the_others_have_what_was_known(stage: Stage) -> None:
    await stage.published()
    await stage.prompt()
    stage.seconds += FRESH_S
    stage.store.hold, stage.store.reached = asyncio.Event(), asyncio.Event()
    reading = asyncio.create_task(stage.prompt())
    await stage.store.reached.wait()
    assert await stage.prompt() == "You speak English."
    reading.cancel()  # its place is the next caller's
    with pytest.raises(asyncio.CancelledError):
        await reading
    stage.store.hold, reads = None, stage.store.reads
    await stage.prompt()
    assert stage.store.reads == reads + 1


@pytest.mark.parametrize("told", ["outdate", "outdate_all"])
async def test_what_another_process_tells_of_is_read_anew(stage: Stage, told: str) -> None:
    made = await stage.published()
    await stage.prompt()
    await stage.store.archive("acme", made.id, made.updated_at, expected_revision=2, at=made.updated_at, audit=noted)
    getattr(stage.configs.cache, told)(*(("acme", "greet") if told == "outdate" else ()))
    stage.store.down = True
    assert await stage.prompt() == "You speak English.", "of use while there is nothing newer"
    stage.store.down = False
    stage.configs.cache.outdate("acme", "greet")
    with pytest.raises(BadUserInputError, match="archived"):
        await stage.prompt()


async def test_a_read_that_a_write_overtook_is_not_kept(stage: Stage) -> None:
    made = await stage.published()
    stage.store.hold, stage.store.reached = asyncio.Event(), asyncio.Event()
    late = asyncio.create_task(stage.prompt())
    await stage.store.reached.wait()
    hold, stage.store.hold = stage.store.hold, None
    await stage.configs.archive(ACME, ConfigBy(id=made.id))
    hold.set()
    await late
    with pytest.raises(BadUserInputError, match="archived"):
        await stage.prompt()


async def test_a_read_that_another_process_s_write_overtook_serves_only_while_the_store_is_away(stage: Stage) -> None:
    await stage.published()
    stage.store.hold, stage.store.reached = asyncio.Event(), asyncio.Event()
    late = asyncio.create_task(stage.prompt())
    await stage.store.reached.wait()
    stage.configs.cache.outdate("acme", "greet")
    hold, stage.store.hold = stage.store.hold, None
    hold.set()
    await late
    reads = stage.store.reads
    stage.store.down = True
    assert await stage.prompt() == "You speak English."
    assert stage.store.reads == reads + 1, "it was tried"


async def test_the_cache_is_bounded(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_cache, "MAX_HEADS", 2)
    for slug in ("a", "b", "c"):
        await stage.published(slug)
        await stage.configs.resolve(ACME, ConfigCall(ConfigRef(slug, variables={"name": "x"})))
    before = stage.store.reads
    for slug in ("c", "b", "a"):
        await stage.configs.resolve(ACME, ConfigCall(ConfigRef(slug, variables={"name": "x"})))
    assert stage.store.reads == before + 1


async def test_versions_are_bounded_by_what_they_hold(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.published(content=replace(CONTENT, description="x" * 1000))
    config = await stage.configs.get(ACME, GREET)
    size = len(config.draft_text)
    monkeypatch.setattr(config_cache, "MAX_VERSION_BYTES", 3 * size)
    cache = stage.configs.cache
    for _ in range(5):
        await stage.configs.publish(ACME, GREET)
    for number in range(1, 6):
        version = await cache.version("acme", config.id, number)
        assert version is not None
    kept = [await cache.version("acme", config.id, number) for number in (3, 4, 5)]
    assert [version is each for version, each in zip(kept, cache._versions.values(), strict=True)] == [True] * 3
