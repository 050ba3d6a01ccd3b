"""What every ConfigStore keeps to, embedded or server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from persistence.config_records import (
    Config,
    ConfigContent,
    ConfigCursor,
    ConfigFilter,
    ConfigOrder,
    ConfigVersion,
    encoded,
)
from persistence.migrations.sqlite import migrate
from persistence.mongo.client import open_mongo
from persistence.mongo.configs import MongoConfigs
from persistence.ports import ConfigStore, Conflict, StoreConflictError
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import open_database
from tests.persistence.audit import noted
from tests.persistence.configs import CONTENT, config, contents, texts
from tests.persistence.entries import NOON, at
from tests.servers.mongo import migrated_database, shared_mongo

Opener = Callable[[Path], AbstractAsyncContextManager[ConfigStore]]

ANY = ConfigFilter()
OTHER = replace(CONTENT, description="Answers at length", temperature=1.5)
ROUNDS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[ConfigStore]:
    migrate(folder / "configs.db")
    async with open_database(folder / "configs.db") as database:
        yield SQLiteConfigs(database)


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[ConfigStore]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield MongoConfigs(mongo)


@pytest.fixture(params=[pytest.param(open_sqlite, id="sqlite"), pytest.param(open_mongodb, id="mongodb")])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ConfigStore]:
    opener: Opener = request.param
    async with opener(tmp_path) as store:
        yield store


@pytest.fixture
def org() -> str:
    """One of its own for each test: a server keeps what earlier tests wrote."""
    return f"org_{uuid4().hex}"


async def created(store: ConfigStore, org: str, **changes: object) -> Config:
    made = config(organisation=org, **changes)
    await store.create(made, audit=noted)
    return made


async def every_version(store: ConfigStore, made: Config, size: int = 2) -> list[ConfigVersion]:
    found: list[ConfigVersion] = []
    while page := await store.versions(
        made.organisation, made.id, limit=size, before=found[-1].number if found else None
    ):
        assert len(page) <= size
        found.extend(page)
    return found


async def every_page(
    store: ConfigStore, org: str, order: ConfigOrder, size: int = 2, where: ConfigFilter = ANY
) -> AsyncIterator[list[Config]]:
    after = None
    for _ in count():
        page = list(await store.page(org, where=where, order=order, limit=size, after=after))
        assert len(page) <= size
        if not page:
            return
        yield page
        after = ConfigCursor(page[-1].slug, page[-1].updated_at)


async def slugs(store: ConfigStore, org: str, **where: object) -> list[str]:
    pages = every_page(store, org, ConfigOrder.SLUG, where=ConfigFilter(**where))
    return [found.slug async for page in pages for found in page]


async def test_nothing_is_there_at_first(store: ConfigStore, org: str) -> None:
    assert await store.by_id(org, "cfg_x") is None
    assert await store.by_slug(org, "x") is None
    assert await store.version(org, "cfg_x", 1) is None
    assert list(await store.versions(org, "cfg_x", limit=5)) == []
    assert list(await store.page(org, where=ANY, order=ConfigOrder.UPDATED, limit=5)) == []
    for write in writes(store, org, "cfg_x", 1):
        assert await write() is None


def writes(store: ConfigStore, org: str, config_id: str, revision: int) -> list[Callable]:
    change = {"expected_revision": revision, "at": at(5)}
    return [
        lambda: store.save_draft(org, config_id, OTHER, **change, audit=noted),
        lambda: store.publish_draft(org, config_id, **change, by="key_1", audit=noted),
        lambda: store.publish_version(org, config_id, 1, **change, audit=noted),
        lambda: store.archive(org, config_id, at(4), **change, audit=noted),
    ]


@ROUNDS
@given(contents, st.none() | st.just(at(7)), contents)
async def test_what_goes_in_comes_out(
    store: ConfigStore, content: ConfigContent, archived: object, later: ConfigContent
) -> None:
    made = await created(store, f"org_{uuid4().hex}", draft=content, archived_at=archived)
    org = made.organisation
    assert await store.by_id(org, made.id) == await store.by_slug(org, made.slug) == made
    assert await store.page(org, where=ANY, order=ConfigOrder.UPDATED, limit=5) == [made]
    published = await store.publish_draft(org, made.id, expected_revision=1, at=at(1), by="key_1", audit=noted)
    assert published == replace(made, revision=2, updated_at=at(1), published=1)
    assert await store.version(org, made.id, 1) == ConfigVersion(org, made.id, 1, encoded(content), at(1), "key_1")
    saved = await store.save_draft(org, made.id, later, expected_revision=2, at=at(2), audit=noted)
    assert (
        saved
        == await store.by_id(org, made.id)
        == replace(published, revision=3, updated_at=at(2), draft_text=encoded(later))
    )


async def test_what_can_t_be_stored_is_refused(store: ConfigStore, org: str) -> None:
    for changes in (
        {"draft": replace(CONTENT, description="\ud800")},
        {"draft": replace(CONTENT, seed=2**70)},
        {"updated_at": NOON + timedelta(microseconds=1)},
        {"updated_at": NOON.replace(tzinfo=None)},
    ):
        with pytest.raises(ValueError, match=r"."):
            await created(store, org, **changes)
    assert await slugs(store, org) == []
    made = await created(store, org)
    with pytest.raises(ValueError, match="limit"):
        await store.page(org, where=ANY, order=ConfigOrder.SLUG, limit=0)
    with pytest.raises(ValueError, match="limit"):
        await store.versions(org, made.id, limit=0)


async def test_a_slug_is_taken_once_in_an_organisation(store: ConfigStore, org: str) -> None:
    made = await created(store, org, slug="mine", archived_at=NOON)
    with pytest.raises(StoreConflictError, match="mine") as caught:
        await created(store, org, slug="mine")
    assert caught.value.on is Conflict.SLUG
    theirs = await created(store, f"{org}_2", slug="mine", id=made.id)
    assert await store.by_slug(org, "mine") == made
    assert await store.by_slug(theirs.organisation, "mine") == theirs


async def test_of_many_that_want_a_slug_one_gets_it(store: ConfigStore, org: str) -> None:
    tries = await asyncio.gather(*(created(store, org, slug="mine") for _ in range(8)), return_exceptions=True)
    [winner] = [each for each in tries if isinstance(each, Config)]
    assert all(each.on is Conflict.SLUG for each in tries if isinstance(each, StoreConflictError))
    assert await store.by_slug(org, "mine") == winner


async def test_an_organisation_sees_and_changes_its_own(store: ConfigStore, org: str) -> None:
    ours = await created(store, org)
    other = f"{org}_2"
    published = await store.publish_draft(org, ours.id, expected_revision=1, at=at(1), by="key_1", audit=noted)
    assert published is not None
    assert await store.by_id(other, ours.id) is None
    assert await store.by_slug(other, ours.slug) is None
    assert await store.version(other, ours.id, 1) is None
    assert list(await store.versions(other, ours.id, limit=5)) == []
    assert await slugs(store, other) == []
    for write in writes(store, other, ours.id, 2):
        assert await write() is None
    assert await store.by_id(org, ours.id) == published
    theirs = await created(store, other, id=ours.id, slug=ours.slug)
    await store.save_draft(other, ours.id, OTHER, expected_revision=1, at=at(2), audit=noted)
    await store.publish_draft(other, ours.id, expected_revision=2, at=at(3), by="key_2", audit=noted)
    assert await store.by_id(org, ours.id) == published
    assert [each.created_by for each in await every_version(store, ours)] == ["key_1"]
    assert [each.created_by for each in await every_version(store, theirs)] == ["key_2"]


async def test_a_stale_revision_changes_nothing(store: ConfigStore, org: str) -> None:
    made = await created(store, org)
    standing = await store.publish_draft(org, made.id, expected_revision=1, at=at(1), by="key_1", audit=noted)
    for revision in (1, 3):
        for write in writes(store, org, made.id, revision):
            with pytest.raises(StoreConflictError, match="revision 2") as caught:
                await write()
            assert caught.value.on is Conflict.REVISION
    assert await store.by_id(org, made.id) == standing
    assert len(await every_version(store, made)) == 1


async def test_of_two_writers_with_one_revision_one_wins(store: ConfigStore, org: str) -> None:
    made = await created(store, org)
    drafts = [replace(CONTENT, description=f"by writer {n}") for n in range(8)]
    tries = await asyncio.gather(
        *(store.save_draft(org, made.id, draft, expected_revision=1, at=at(1), audit=noted) for draft in drafts),
        return_exceptions=True,
    )
    [winner] = [each for each in tries if isinstance(each, Config)]
    assert sum(isinstance(each, StoreConflictError) for each in tries) == 7
    assert await store.by_id(org, made.id) == winner
    assert winner.revision == 2


async def test_publish_roll_back_and_publish_again(store: ConfigStore, org: str) -> None:
    made = await created(store, org)
    await store.publish_draft(org, made.id, expected_revision=1, at=at(1), by="key_1", audit=noted)
    await store.save_draft(org, made.id, OTHER, expected_revision=2, at=at(2), audit=noted)
    await store.publish_draft(org, made.id, expected_revision=3, at=at(3), by="key_2", audit=noted)
    back = await store.publish_version(org, made.id, 1, expected_revision=4, at=at(4), audit=noted)
    assert back is not None
    assert (back.published, back.draft, back.revision, back.updated_at) == (1, OTHER, 5, at(4))
    assert await store.publish_version(org, made.id, 3, expected_revision=5, at=at(5), audit=noted) is None
    again = await store.publish_draft(org, made.id, expected_revision=5, at=at(6), by="key_1", audit=noted)
    assert again is not None
    assert (again.published, again.revision) == (3, 6)
    found = [(each.number, each.content, each.created_at, each.created_by) for each in await every_version(store, made)]
    assert found == [(3, OTHER, at(6), "key_1"), (2, OTHER, at(3), "key_2"), (1, CONTENT, at(1), "key_1")]


async def test_archive_and_take_it_back(store: ConfigStore, org: str) -> None:
    made = await created(store, org)
    gone = await store.archive(org, made.id, at(1), expected_revision=1, at=at(1), audit=noted)
    assert gone == await store.by_slug(org, made.slug) == replace(made, archived_at=at(1), updated_at=at(1), revision=2)
    back = await store.archive(org, made.id, None, expected_revision=2, at=at(2), audit=noted)
    assert back == replace(made, updated_at=at(2), revision=3)


async def test_versions_have_no_gap_and_never_change_whoever_writes(store: ConfigStore, org: str) -> None:
    made = await created(store, org)

    async def writer(name: str) -> int:
        return sum(
            [
                await until_it_wins(store, made, replace(CONTENT, description=f"{name} {turn}"), name)
                for turn in range(4)
            ]
        )

    changes = sum(await asyncio.gather(*(writer(f"key_{n}") for n in range(4))))
    versions = await every_version(store, made)
    assert [each.number for each in versions] == list(range(16, 0, -1))
    assert {each.content.description for each in versions} == {f"key_{n} {turn}" for n in range(4) for turn in range(4)}
    assert all(each.content.description.startswith(each.created_by) for each in versions)
    standing = await store.by_id(org, made.id)
    assert standing is not None
    assert (standing.published, standing.revision) == (16, 1 + changes)


async def until_it_wins(store: ConfigStore, made: Config, draft: ConfigContent, name: str) -> int:
    """Saves and publishes a draft, beginning anew whenever another writer came between.

    Returns how many changes it made."""
    changes = 0
    while True:
        standing = await store.by_id(made.organisation, made.id)
        assert standing is not None
        change = {"at": at(1)}
        try:
            saved = await store.save_draft(
                made.organisation, made.id, draft, expected_revision=standing.revision, **change, audit=noted
            )
            assert saved is not None
        except StoreConflictError:
            continue
        changes += 1
        try:
            await store.publish_draft(
                made.organisation, made.id, expected_revision=saved.revision, by=name, **change, audit=noted
            )
        except StoreConflictError:
            continue
        return changes + 1


@pytest.mark.parametrize("order", ConfigOrder)
async def test_pages_are_in_order_and_whole(store: ConfigStore, org: str, order: ConfigOrder) -> None:
    times = [3, 1, 3, 2, 3]
    made = [await created(store, org, slug=f"s{n}", updated_at=at(time)) for n, time in enumerate(times)]
    await created(store, f"{org}_2", slug="theirs")
    if order is ConfigOrder.UPDATED:
        made.sort(key=lambda each: (each.updated_at, each.slug), reverse=True)
    for size in (1, 2, 5, 9):
        assert [each async for page in every_page(store, org, order, size) for each in page] == made


@pytest.mark.parametrize("order", ConfigOrder)
async def test_paging_while_others_write(store: ConfigStore, org: str, order: ConfigOrder) -> None:
    made = [await created(store, org, slug=f"m{n}", updated_at=at(n)) for n in range(9)]
    seen: list[str] = []
    async for page in every_page(store, org, order):
        seen += [each.slug for each in page]
        written = made[len(seen) % 9]
        standing = await store.by_id(org, written.id)
        assert standing is not None
        await store.save_draft(
            org, written.id, OTHER, expected_revision=standing.revision, at=at(100 + len(seen)), audit=noted
        )
        await created(store, org, slug=f"a{len(seen)}", updated_at=at(200 + len(seen)))
    kept = {each.slug for each in made if (await store.by_id(org, each.id)).revision == 1}
    assert len(seen) == len(set(seen))
    assert kept <= set(seen)


async def test_filters(store: ConfigStore, org: str) -> None:
    await created(store, org, slug="plain", draft=ConfigContent("openai/a", description="Größe in METERN"))
    await created(store, org, slug="tagged", draft=ConfigContent("openai/b", labels={"team": "x", "tier": "y"}))
    await created(store, org, slug="gone", draft=ConfigContent("openai/a", labels={"team": "y"}), archived_at=NOON)
    assert await slugs(store, org) == ["gone", "plain", "tagged"]
    assert await slugs(store, org, archived=True) == ["gone"]
    assert await slugs(store, org, archived=False) == ["plain", "tagged"]
    assert await slugs(store, org, model="openai/a") == ["gone", "plain"]
    assert await slugs(store, org, model="openai/a", archived=False) == ["plain"]
    assert await slugs(store, org, label=("team", "x")) == ["tagged"]
    assert await slugs(store, org, label=("team", "y")) == ["gone"]
    assert await slugs(store, org, label=("x", "team")) == []
    assert await slugs(store, org, search="LAI") == ["plain"]
    assert await slugs(store, org, search="gRÖSSE") == ["plain"]
    assert await slugs(store, org, search="%") == []


async def test_filters_follow_the_draft(store: ConfigStore, org: str) -> None:
    made = await created(store, org)
    await store.save_draft(
        org, made.id, ConfigContent("m/n", labels={"a": "b"}), expected_revision=1, at=at(1), audit=noted
    )
    assert await slugs(store, org, model="m/n", label=("a", "b")) == [made.slug]
    assert await slugs(store, org, model=CONTENT.model) == await slugs(store, org, search=CONTENT.description) == []


@ROUNDS
@given(texts, texts, texts)
@example("a\0b", "\0c", "d\0e")
@example('"\\', "\n'", "\U0001f600")
async def test_any_label_is_found_by_its_whole_name_and_value(
    store: ConfigStore, name: str, value: str, other: str
) -> None:
    org = f"org_{uuid4().hex}"
    made = await created(store, org, draft=replace(CONTENT, labels={name: value}, description=f"<{other}>"))
    assert await slugs(store, org, label=(name, value)) == [made.slug]
    assert await slugs(store, org, search=other) == [made.slug]
    if other != value:
        assert await slugs(store, org, label=(name, other)) == []
