"""Connections end with what opened them: at its end, at the end that it was given since, and never before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from math import inf

import pytest

from gateway import expiry
from gateway.expiry import open_while_valid
from persistence.key_records import ApiKey
from resolvers.errors import ServiceUnavailableError, UnauthenticatedError
from resolvers.principal import Principal
from resolvers.sessions import Sessions, open_sessions
from tests.persistence.api_keys import MemoryApiKeys, api_key
from tests.persistence.audit import noted
from tests.persistence.entries import NOON

FOR_EVER = Principal("ann", "acme", frozenset(), inf)


class Stage:
    """A connection, and what its token is worth when it is looked at again: a principal, or an error to raise."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.ended = asyncio.Event()
        self.revoked = asyncio.Event()
        self.now: Principal | Exception = UnauthenticatedError("it has expired")
        self.looks: asyncio.Queue[None] = asyncio.Queue()

    def open(self, principal: Principal) -> AbstractAsyncContextManager[None]:
        return open_while_valid(self.sessions, principal, self._again, revoked=self._revoke, expired=self._expire)

    async def _again(self) -> Principal:
        self.looks.put_nowait(None)
        if isinstance(self.now, Exception):
            raise self.now
        return self.now

    async def _expire(self) -> None:
        self.ended.set()

    async def _revoke(self) -> None:
        self.revoked.set()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with asyncio.timeout(20), open_sessions(MemoryApiKeys(), lambda: NOON) as sessions:
        yield Stage(sessions)


def ending_in(seconds: float) -> Principal:
    return replace(FOR_EVER, expires_at=time.time() + seconds)


async def test_it_ends_at_its_end_and_not_before(stage: Stage) -> None:
    principal = ending_in(0.2)
    async with stage.open(principal):
        await stage.ended.wait()
    assert time.time() >= principal.expires_at
    assert stage.looks.qsize() == 1


async def test_what_is_closed_before_is_watched_no_more(stage: Stage) -> None:
    async with stage.open(ending_in(0.05)):
        pass
    await asyncio.sleep(0.2)
    assert not stage.ended.is_set()
    assert stage.looks.empty()


async def test_one_without_an_end_stays_however_the_clock_goes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LONGEST_WAIT_S", 0.01)
    async with stage.open(FOR_EVER):
        await asyncio.sleep(0.1)
    assert not stage.ended.is_set()


async def test_a_clock_that_is_set_forward_is_noticed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LONGEST_WAIT_S", 0.01)
    principal = ending_in(3600)
    async with stage.open(principal):
        monkeypatch.setattr(time, "time", lambda: principal.expires_at + 1)
        await stage.ended.wait()


async def test_one_that_was_given_a_later_end_stays_until_then(stage: Stage) -> None:
    stage.now = later = ending_in(0.4)
    async with stage.open(ending_in(0.1)):
        await stage.looks.get()
        stage.now = UnauthenticatedError("it has expired")
        await stage.ended.wait()
    assert time.time() >= later.expires_at


async def test_while_the_keys_can_t_be_read_it_is_asked_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "RETRY_S", 0.01)
    stage.now = ServiceUnavailableError("away")
    async with stage.open(ending_in(0.05)):
        for _ in range(3):
            await stage.looks.get()
        assert not stage.ended.is_set()
        stage.now = UnauthenticatedError("it has expired")
        await stage.ended.wait()


async def test_a_defect_keeps_nothing_open(stage: Stage) -> None:
    stage.now = ZeroDivisionError("a defect")
    async with stage.open(ending_in(0.05)):
        await stage.ended.wait()


@pytest.fixture
def key() -> ApiKey:
    return api_key()


async def test_a_key_that_is_given_an_earlier_end_is_looked_at_at_once(key: ApiKey) -> None:
    store = MemoryApiKeys()
    await store.create(key, "digest", at_most=5, audit=noted)
    async with asyncio.timeout(20), open_sessions(store, lambda: NOON) as sessions:
        stage = Stage(sessions)
        stage.now = ending_in(0.2)
        async with stage.open(replace(FOR_EVER, organisation=key.organisation, key_id=key.id)):
            sessions.suspect(key.organisation, key.id)
            await stage.looks.get()
            stage.now = UnauthenticatedError("it has expired")
            await stage.ended.wait()
            assert not stage.revoked.is_set()
