"""What every ApiKeyStore keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from persistence.key_records import ApiKey, ApiKeyFilter, Grant, PresentedKey
from persistence.migrations.sqlite import migrate
from persistence.mongo.api_keys import MongoApiKeys
from persistence.mongo.client import open_mongo
from persistence.ports import ApiKeyStore, Conflict, StoreConflictError
from persistence.sqlite.api_keys import SQLiteApiKeys
from persistence.sqlite.database import open_database
from tests.persistence.api_keys import MemoryApiKeys, api_key
from tests.persistence.audit import noted
from tests.persistence.entries import NOON, at
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[ApiKeyStore]]

ANY = ApiKeyFilter()
EVERYTHING = Grant(
    ("completions:write", "é"), ("caller",), ("openai/*", "mistral/a b"), ("a", "b.c"), ("10.0.0.0/8", "::1/128")
)


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[ApiKeyStore]:
    migrate(folder / "keys.db")
    async with open_database(folder / "keys.db") as database:
        yield SQLiteApiKeys(database)


@asynccontextmanager
async def open_memory(_: Path) -> AsyncIterator[ApiKeyStore]:
    yield MemoryApiKeys()


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[ApiKeyStore]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoApiKeys(mongo)


@pytest.fixture(
    params=[
        pytest.param(open_sqlite, id="sqlite"),
        pytest.param(open_mongodb, id="mongodb"),
        pytest.param(open_memory, id="memory"),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ApiKeyStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


async def made(store: ApiKeyStore, **changes: object) -> tuple[ApiKey, str]:
    key, digest = api_key(**changes), uuid4().hex
    await store.create(key, digest, at_most=1000, audit=noted)
    return key, digest


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grant": EVERYTHING, "expires_at": at(48), "name": "Ein Schlüssel 🔑"},
        {"grant": Grant(roles=("admin",), models=(), configs=(), networks=())},
        {"organisation": "{a}:%'\"", "last_used_at": at(1)},
    ],
)
async def test_what_is_created_is_found_as_it_was(store: ApiKeyStore, changes: dict[str, object]) -> None:
    key, digest = await made(store, **changes)
    assert await store.by_digest(digest) == PresentedKey(key, None)
    assert await store.by_id(key.organisation, key.id) == key
    assert await store.page(key.organisation, where=ANY, limit=5) == [key]


async def test_another_organisation_has_none_of_it(store: ApiKeyStore) -> None:
    key, _ = await made(store)
    changed = replace(key, organisation="globex", name="taken")
    assert await store.by_id("globex", key.id) is None
    assert await store.page("globex", where=ANY, limit=5) == []
    assert await store.save(changed, expected_revision=1, audit=noted) is None
    assert await store.rotate("globex", key.id, "d", hint="aim_x", until=at(1), at=at(1), audit=noted) is None
    assert await store.revoke("globex", key.id, at=at(1), by="x", audit=noted) is None
    await store.note_uses({("globex", key.id): at(1)})
    assert await store.by_id("acme", key.id) == key
    assert await store.by_digest("d") is None


async def test_what_nobody_made_is_not_found(store: ApiKeyStore) -> None:
    await made(store)
    assert await store.by_digest(uuid4().hex) is None
    assert await store.by_id("acme", "key_x") is None


async def test_there_are_so_many_at_most_and_one_that_is_over_is_none(store: ApiKeyStore) -> None:
    await made(store, expires_at=NOON)
    revoked, _ = await made(store)
    await store.revoke("acme", revoked.id, at=NOON, by="x", audit=noted)
    await made(store, organisation="globex")
    results = await asyncio.gather(
        *(store.create(api_key(), uuid4().hex, at_most=3, audit=noted) for _ in range(8)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, StoreConflictError)]
    assert (len(refused), {each.on for each in refused}) == (5, {Conflict.FULL})
    assert len(await store.page("acme", where=ApiKeyFilter(opens_at=NOON), limit=9)) == 3
    assert len(await store.page("acme", where=ANY, limit=9)) == 5


async def test_a_refused_key_leaves_no_digest(store: ApiKeyStore) -> None:
    await made(store)
    with pytest.raises(StoreConflictError):
        await store.create(api_key(), "refused", at_most=1, audit=noted)
    assert await store.by_digest("refused") is None


async def test_saving_is_the_next_revision_of_what_may_change(store: ApiKeyStore) -> None:
    key, digest = await made(store)
    wanted = replace(key, name="Another", grant=EVERYTHING, expires_at=at(9), updated_at=at(1))
    saved = await store.save(replace(wanted, hint="no", created_by="no"), expected_revision=1, audit=noted)
    assert saved == replace(wanted, revision=2)
    assert await store.by_digest(digest) == PresentedKey(saved, None)
    with pytest.raises(StoreConflictError) as caught:
        await store.save(wanted, expected_revision=1, audit=noted)
    assert caught.value.on is Conflict.REVISION
    assert await store.by_id("acme", key.id) == saved


async def test_an_older_digest_ends_when_it_is_told(store: ApiKeyStore) -> None:
    key, first = await made(store)
    rotated = await store.rotate("acme", key.id, "second", hint="aim_2", until=at(5), at=at(1), audit=noted)
    assert rotated == replace(key, hint="aim_2", revision=2, updated_at=at(1))
    assert await store.by_digest(first) == PresentedKey(rotated, at(5))
    assert await store.by_digest("second") == PresentedKey(rotated, None)
    again = await store.rotate("acme", key.id, "third", hint="aim_3", until=at(9), at=at(2), audit=noted)
    assert again is not None
    assert [(await store.by_digest(each)).until for each in (first, "second", "third")] == [at(5), at(9), None]  # type: ignore[union-attr]
    await store.rotate("acme", key.id, "fourth", hint="aim_4", until=at(3), at=at(3), audit=noted)
    assert [(await store.by_digest(each)).until for each in (first, "second", "third")] == [at(3)] * 3  # type: ignore[union-attr]


async def test_a_revoked_key_stays_so(store: ApiKeyStore) -> None:
    key, digest = await made(store)
    revoked = await store.revoke("acme", key.id, at=at(1), by="someone", audit=noted)
    assert revoked == replace(key, revoked_at=at(1), revoked_by="someone", updated_at=at(1), revision=2)
    assert await store.revoke("acme", key.id, at=at(2), by="another", audit=noted) == revoked
    assert await store.by_digest(digest) == PresentedKey(revoked, None)
    for change in (
        store.save(replace(key, name="x"), expected_revision=2, audit=noted),
        store.rotate("acme", key.id, "next", hint="aim_n", until=at(3), at=at(2), audit=noted),
    ):
        with pytest.raises(StoreConflictError) as caught:
            await change
        assert caught.value.on is Conflict.ENDED
    assert await store.by_digest("next") is None
    assert await store.by_id("acme", key.id) == revoked


async def test_of_two_that_change_at_once_one_comes_first(store: ApiKeyStore) -> None:
    key, _ = await made(store)
    results = await asyncio.gather(
        *(store.save(replace(key, name=f"n{number}"), expected_revision=1, audit=noted) for number in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, ApiKey) for result in results) == 1


async def test_pages_go_from_new_to_old(store: ApiKeyStore) -> None:
    keys = [(await made(store, expires_at=at(number) if number % 2 else None))[0] for number in range(6)]
    newest = list(reversed(keys))
    assert await store.page("acme", where=ANY, limit=4) == newest[:4]
    assert await store.page("acme", where=ANY, limit=4, before=newest[3].id) == newest[4:]
    open_then = ApiKeyFilter(opens_at=at(3))
    assert await store.page("acme", where=open_then, limit=9) == [key for key in newest if key.opens(at(3))]
    with pytest.raises(ValueError, match="limit"):
        await store.page("acme", where=ANY, limit=0)


async def test_uses_are_noted_and_never_backwards(store: ApiKeyStore) -> None:
    (one, _), (other, _) = await made(store), await made(store)
    await store.note_uses({("acme", one.id): at(5), ("acme", "key_unknown"): at(5)})
    await store.note_uses({("acme", one.id): at(3), ("acme", other.id): at(1)})
    await store.note_uses({})
    assert [each.last_used_at for each in await store.page("acme", where=ANY, limit=5)] == [at(1), at(5)]
    assert (await store.by_id("acme", one.id)) == replace(one, last_used_at=at(5))


@pytest.mark.parametrize("wrong", [NOON + timedelta(microseconds=1), datetime(2026, 1, 1)])  # noqa: DTZ001  # that is the point
async def test_times_are_aware_and_whole_milliseconds(store: ApiKeyStore, wrong: datetime) -> None:
    if isinstance(store, MemoryApiKeys):
        return
    with pytest.raises(ValueError, match="time"):
        await store.create(api_key(expires_at=wrong), "d", at_most=5, audit=noted)
    assert await store.by_digest("d") is None
