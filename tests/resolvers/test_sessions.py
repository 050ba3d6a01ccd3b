"""Connections end with the key that they were opened with, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from persistence.key_records import ApiKey
from resolvers.sessions import END_TIMEOUT_S, RETRY_S, End, Sessions, open_sessions
from tests.persistence.api_keys import MemoryApiKeys, api_key
from tests.persistence.audit import noted
from tests.persistence.entries import NOON

from .scene import ACME


class Stage:
    def __init__(self, sessions: Sessions, store: MemoryApiKeys, key: ApiKey) -> None:
        self.sessions = sessions
        self.store = store
        self.key = key
        self.holder = replace(ACME, key_id=key.id)
        self.ended: list[str] = []

    def end(self, name: str) -> End:
        async def end() -> None:
            self.ended.append(name)

        return end

    async def told(self) -> list[str]:
        self.sessions.suspect("acme", self.key.id)
        await asyncio.sleep(0.1)
        return self.ended


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    store, key = MemoryApiKeys(), api_key()
    await store.create(key, "digest", at_most=5, audit=noted)
    async with open_sessions(store, lambda: NOON + timedelta(hours=1)) as sessions:
        yield Stage(sessions, store, key)


async def test_a_revoked_key_ends_its_own_and_no_others(stage: Stage) -> None:
    other = api_key()
    await stage.store.create(other, "other", at_most=5, audit=noted)
    with (
        stage.sessions.session(stage.holder, stage.end("one")),
        stage.sessions.session(stage.holder, stage.end("two")),
        stage.sessions.session(replace(ACME, key_id=other.id), stage.end("other key")),
        stage.sessions.session(ACME, stage.end("a token's")),
        stage.sessions.session(replace(stage.holder, organisation="globex"), stage.end("other's")),
    ):
        assert await stage.told() == [], "it still opens"
        await stage.store.revoke("acme", stage.key.id, at=NOON, by="x", audit=noted)
        assert sorted(await stage.told()) == ["one", "two"]


async def test_one_that_was_changed_and_opens_still_is_told_of(stage: Stage) -> None:
    changed = asyncio.Event()
    with stage.sessions.session(stage.holder, stage.end("one"), changed.set):
        await stage.store.save(
            replace(stage.key, expires_at=NOON + timedelta(days=1)), expected_revision=1, audit=noted
        )
        assert await stage.told() == []
        assert changed.is_set()


async def test_one_that_has_expired_ends_them_too(stage: Stage) -> None:
    with stage.sessions.session(stage.holder, stage.end("one")):
        await stage.store.save(replace(stage.key, expires_at=NOON), expected_revision=1, audit=noted)
        stage.sessions.suspect_all()
        await asyncio.sleep(0.1)
    assert stage.ended == ["one"]


async def test_what_is_closed_already_is_let_be(stage: Stage) -> None:
    with stage.sessions.session(stage.holder, stage.end("one")):
        pass
    await stage.store.revoke("acme", stage.key.id, at=NOON, by="x", audit=noted)
    assert await stage.told() == []


async def test_while_the_store_is_away_it_is_asked_again(stage: Stage) -> None:
    with stage.sessions.session(stage.holder, stage.end("one")):
        await stage.store.revoke("acme", stage.key.id, at=NOON, by="x", audit=noted)
        stage.store.down = True
        assert await stage.told() == []
        stage.store.down = False
        await asyncio.sleep(RETRY_S)
    assert stage.ended == ["one"]


async def test_one_that_can_t_be_ended_keeps_no_other_open(stage: Stage) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise OSError("gone")

    with (
        stage.sessions.session(stage.holder, hangs),
        stage.sessions.session(stage.holder, fails),
        stage.sessions.session(stage.holder, stage.end("one")),
    ):
        await stage.store.revoke("acme", stage.key.id, at=NOON, by="x", audit=noted)
        assert await stage.told() == ["one"]
        await asyncio.sleep(END_TIMEOUT_S)
        assert sorted(await stage.told()) == ["one", "one"], "it goes on"
