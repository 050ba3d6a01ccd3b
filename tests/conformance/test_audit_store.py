"""What every AuditStore keeps to, embedded or server; and that no write is without its event, no event without its
write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from persistence.audit_records import AuditEvent, AuditFilter, first_id
from persistence.config_records import ConfigContent
from persistence.key_records import ApiKeyFilter
from persistence.migrations.sqlite import migrate
from persistence.mongo.api_keys import MongoApiKeys
from persistence.mongo.audit import MongoAuditLog
from persistence.mongo.client import open_mongo
from persistence.mongo.configs import MongoConfigs
from persistence.mongo.prices import MongoPrices
from persistence.mongo.provider_keys import MongoProviderKeys
from persistence.ports import (
    ApiKeyStore,
    Audit,
    AuditStore,
    ConfigStore,
    PriceStore,
    ProviderKeyStore,
    StoreConflictError,
    StoreUnavailableError,
)
from persistence.sqlite.api_keys import SQLiteApiKeys
from persistence.sqlite.audit import SQLiteAuditLog
from persistence.sqlite.configs import SQLiteConfigs
from persistence.sqlite.database import open_database
from persistence.sqlite.prices import SQLitePrices
from persistence.sqlite.provider_keys import SQLiteProviderKeys
from tests.persistence.api_keys import api_key
from tests.persistence.audit import MemoryAuditLog, audit_event, noted
from tests.persistence.configs import config
from tests.persistence.entries import NOON, at
from tests.persistence.prices import price_rule
from tests.persistence.provider_keys import provider_key
from tests.servers.mongo import migrated_database, shared_mongo

ANY = AuditFilter()


@dataclass(frozen=True)
class Documents:
    log: AuditStore
    configs: ConfigStore
    prices: PriceStore
    api_keys: ApiKeyStore
    provider_keys: ProviderKeyStore

    async def all(self) -> list[Any]:
        """Everything that is there, but the log."""
        made = await self.configs.by_slug("acme", "greet")
        versions = [] if made is None else await self.configs.versions("acme", made.id, limit=9)
        rules = await self.prices.unended("acme", since=NOON)
        keys = await self.api_keys.page("acme", where=ApiKeyFilter(), limit=9)
        presented = [await self.api_keys.by_digest(digest) for digest in ("digest", "other")]
        return [made, versions, rules, keys, presented, await self.provider_keys.of("acme")]


Opener = Callable[[Path], AbstractAsyncContextManager[Documents]]


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[Documents]:
    migrate(folder / "documents.db")
    async with open_database(folder / "documents.db") as database:
        yield Documents(
            SQLiteAuditLog(database),
            SQLiteConfigs(database),
            SQLitePrices(database),
            SQLiteApiKeys(database),
            SQLiteProviderKeys(database),
        )


@asynccontextmanager
async def open_mongodb(_: Path) -> AsyncIterator[Documents]:
    async with open_mongo(await migrated_database(shared_mongo())) as mongo:
        yield Documents(
            MongoAuditLog(mongo), MongoConfigs(mongo), MongoPrices(mongo), MongoApiKeys(mongo), MongoProviderKeys(mongo)
        )


STORES = [pytest.param(open_sqlite, id="sqlite"), pytest.param(open_mongodb, id="mongodb")]


@pytest.fixture(params=STORES)
async def documents(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Documents]:
    opener: Opener = request.param
    async with opener(tmp_path) as opened:
        yield opened


@pytest.fixture(params=[*STORES, pytest.param(None, id="memory")])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AuditStore]:
    if request.param is None:
        yield MemoryAuditLog()
        return
    async with request.param(tmp_path) as opened:
        yield opened.log


def timed(time: datetime, **changes: Any) -> AuditEvent:
    """An event whose id is of its time, as all are."""
    changes.setdefault("id", first_id(time)[:-8] + f"{abs(hash(repr(changes))) % 16**8:08x}")
    return audit_event(at=time, **changes)


async def listed(log: AuditStore, organisation: str = "acme", **where: Any) -> list[AuditEvent]:
    return list(await log.page(organisation, where=AuditFilter(**where), limit=100))


async def test_an_event_is_found_as_it_was(log: AuditStore) -> None:
    deep = {"text": "é 🔑 \x00 \u2028", "big": 2**63, "none": None, "list": [{"a.b": {"$x": 1.5}}]}
    one = audit_event(key_id="key_1", before=None, after=deep)
    other = audit_event(address=None, before=deep, after=None)
    for each in (one, other):
        await log.append(each)
    assert await listed(log) == [other, one]


async def test_the_newest_first_and_page_by_page(log: AuditStore) -> None:
    events = [timed(at(number), request_id=str(number)) for number in (3, 0, 4, 1, 2)]
    for each in events:
        await log.append(each)
    newest = sorted(events, key=lambda each: each.at, reverse=True)
    assert [*await log.page("acme", where=ANY, limit=2)] == newest[:2]
    assert [*await log.page("acme", where=ANY, limit=9, before=newest[1].id)] == newest[2:]
    assert [*await log.page("acme", where=ANY, limit=9, before=newest[-1].id)] == []
    with pytest.raises(ValueError, match="limit"):
        await log.page("acme", where=ANY, limit=0)


async def test_another_organisation_has_its_own(log: AuditStore) -> None:
    ours, theirs = audit_event(), audit_event(organisation="globex")
    await log.append(ours)
    await log.append(theirs)
    for where in ({}, {"actor": ours.actor}, {"subject_id": "cfg_1"}, {"action": ours.action}, {"since": NOON}):
        assert await listed(log, "globex", **where) == [theirs]
        assert await listed(log, "acme", **where) == [ours]
        assert await listed(log, "initech", **where) == []
    assert list(await log.page("globex", where=ANY, limit=9, before="b")) == [theirs]


async def test_all_conditions_hold_at_once(log: AuditStore) -> None:
    one = timed(at(0), action="config.create", subject_id="cfg_1", actor="ada")
    two = timed(at(1), action="config.publish", subject_id="cfg_1", actor="key_1")
    three = timed(at(2), action="config.create", subject_id="cfg_2", actor="key_1")
    for each in (one, two, three):
        await log.append(each)
    assert await listed(log, action="config.create") == [three, one]
    assert await listed(log, subject_id="cfg_1") == [two, one]
    assert await listed(log, actor="key_1") == [three, two]
    assert await listed(log, actor="key_1", subject_id="cfg_1", action="config.publish") == [two]
    assert await listed(log, actor="ada", subject_id="cfg_2") == []
    assert [*await log.page("acme", where=AuditFilter(actor="key_1"), limit=9, before=three.id)] == [two]


@pytest.mark.parametrize("more", [{}, {"actor": "somebody"}])
async def test_a_span_begins_with_since_and_ends_before_until(log: AuditStore, more: dict[str, str]) -> None:
    one, two, three = (timed(at(number)) for number in range(3))
    for each in (one, two, three):
        await log.append(each)
    assert await listed(log, since=at(1), **more) == [three, two]
    assert await listed(log, since=at(1) - timedelta(microseconds=1), **more) == [three, two]
    assert await listed(log, since=at(1) + timedelta(microseconds=1), **more) == [three]
    assert await listed(log, until=at(1), **more) == [one]
    assert await listed(log, since=at(1), until=at(2), **more) == [two]
    assert await listed(log, since=datetime.min.replace(tzinfo=NOON.tzinfo), **more) == [three, two, one]
    assert await listed(log, until=datetime.max.replace(tzinfo=NOON.tzinfo), **more) == [three, two, one]
    where = AuditFilter(until=at(2), **more)
    assert [*await log.page("acme", where=where, limit=9, before=two.id)] == [one]
    assert [*await log.page("acme", where=where, limit=9, before=first_id(at(9)))] == [two, one]


async def test_an_event_stays_as_it_is(documents: Documents) -> None:
    one = audit_event()
    await documents.log.append(one)
    with pytest.raises((ValueError, StoreUnavailableError)):
        await documents.log.append(replace(one, actor="another"))
    with pytest.raises(ValueError, match="millisecond"):
        await documents.log.append(audit_event(at=NOON + timedelta(microseconds=1)))
    assert await listed(documents.log) == [one]


CONFIG, RULE, KEY, PROVIDER_KEY = config(slug="greet"), price_rule(), api_key(), provider_key()
DRAFT = ConfigContent(model="b/c")

Write = Callable[[Documents, Audit[Any]], Awaitable[Any]]
CREATES: dict[str, Write] = {
    "config": lambda to, audit: to.configs.create(CONFIG, audit=audit),
    "rule": lambda to, audit: to.prices.add(RULE, at_most=9, audit=audit),
    "key": lambda to, audit: to.api_keys.create(KEY, "digest", at_most=9, audit=audit),
    "provider key": lambda to, audit: to.provider_keys.put(PROVIDER_KEY, audit=audit),
}
CHANGES: dict[str, Write] = {
    "save a draft": lambda to, audit: to.configs.save_draft(
        "acme", CONFIG.id, DRAFT, expected_revision=2, at=at(2), audit=audit
    ),
    "publish": lambda to, audit: to.configs.publish_draft(
        "acme", CONFIG.id, expected_revision=2, at=at(2), by="x", audit=audit
    ),
    "roll back": lambda to, audit: to.configs.publish_version(
        "acme", CONFIG.id, 1, expected_revision=2, at=at(2), audit=audit
    ),
    "archive": lambda to, audit: to.configs.archive(
        "acme", CONFIG.id, at(2), expected_revision=2, at=at(2), audit=audit
    ),
    "end a rule": lambda to, audit: to.prices.end("acme", RULE.id, at(9), now=at(2), audit=audit),
    "change a key": lambda to, audit: to.api_keys.save(replace(KEY, name="new"), expected_revision=1, audit=audit),
    "rotate a key": lambda to, audit: to.api_keys.rotate(
        "acme", KEY.id, "other", hint="aim_x", until=at(9), at=at(2), audit=audit
    ),
    "revoke a key": lambda to, audit: to.api_keys.revoke("acme", KEY.id, at=at(2), by="x", audit=audit),
    "another provider key": lambda to, audit: to.provider_keys.put(replace(PROVIDER_KEY, hint="zzzz"), audit=audit),
    "delete a provider key": lambda to, audit: to.provider_keys.delete("acme", "openai", audit=audit),
}
SUBJECT_OF = {
    "save a draft": 0,
    "publish": 0,
    "roll back": 0,
    "archive": 0,
    "end a rule": 2,
    "change a key": 3,
    "rotate a key": 3,
    "revoke a key": 3,
    "another provider key": 5,
    "delete a provider key": 5,
}
"""By what is done: where in `Documents.all` the record is."""


async def fill(documents: Documents) -> None:
    for create in CREATES.values():
        await create(documents, noted)
    await documents.configs.publish_draft("acme", CONFIG.id, expected_revision=1, at=at(1), by="x", audit=noted)


class Telling:
    """An audit that remembers what it was told."""

    def __init__(self, **event: Any) -> None:
        self.event = audit_event(**event)
        self.told: list[tuple[Any, Any]] = []

    def __call__(self, before: Any, after: Any) -> AuditEvent:
        self.told.append((before, after))
        return self.event


def only(found: Any) -> Any:
    return found[0] if isinstance(found, list) and found else found or None


@pytest.mark.parametrize("name", [*CREATES, *CHANGES])
async def test_a_write_tells_what_stood_and_what_stands(documents: Documents, name: str) -> None:
    telling = Telling()
    if name in CREATES:
        await CREATES[name](documents, telling)
        record = {"config": CONFIG, "rule": RULE, "key": KEY, "provider key": PROVIDER_KEY}[name]
        assert telling.told[-1] == (None, record)
    else:
        await fill(documents)
        place = SUBJECT_OF[name]
        before = only((await documents.all())[place])
        await CHANGES[name](documents, telling)
        after = only((await documents.all())[place])
        assert before != after or name == "roll back"
        assert telling.told[-1] == (before, after)
    assert telling.event in await listed(documents.log)


@pytest.mark.parametrize("name", [*CREATES, *CHANGES])
async def test_a_write_whose_event_can_t_be_kept_is_not_there(documents: Documents, name: str) -> None:
    """The event's id is taken: of the write, too, nothing is kept."""
    if name in CHANGES:
        await fill(documents)
    taken = audit_event(id=first_id(at(1)))
    await documents.log.append(taken)
    before, told = await documents.all(), await listed(documents.log)
    with pytest.raises((ValueError, StoreUnavailableError)):
        await {**CREATES, **CHANGES}[name](documents, Telling(id=taken.id, actor="another"))
    assert (await documents.all(), await listed(documents.log)) == (before, told)


REFUSED: dict[str, Write] = {
    "a slug that is taken": lambda to, audit: to.configs.create(config(slug="greet"), audit=audit),
    "another revision": lambda to, audit: to.configs.save_draft(
        "acme", CONFIG.id, DRAFT, expected_revision=9, at=at(2), audit=audit
    ),
    "publishing another revision": lambda to, audit: to.configs.publish_draft(
        "acme", CONFIG.id, expected_revision=9, at=at(2), by="x", audit=audit
    ),
    "another's config": lambda to, audit: to.configs.archive(
        "globex", CONFIG.id, at(2), expected_revision=2, at=at(2), audit=audit
    ),
    "no such version": lambda to, audit: to.configs.publish_version(
        "acme", CONFIG.id, 7, expected_revision=2, at=at(2), audit=audit
    ),
    "too many rules": lambda to, audit: to.prices.add(price_rule(), at_most=1, audit=audit),
    "another's rule": lambda to, audit: to.prices.end("globex", RULE.id, at(9), now=at(2), audit=audit),
    "too many keys": lambda to, audit: to.api_keys.create(api_key(), "third", at_most=1, audit=audit),
    "another revision of a key": lambda to, audit: to.api_keys.save(KEY, expected_revision=9, audit=audit),
    "another's key": lambda to, audit: to.api_keys.revoke("globex", KEY.id, at=at(2), by="x", audit=audit),
    "another's provider key": lambda to, audit: to.provider_keys.delete("globex", "openai", audit=audit),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_is_not_noted(documents: Documents, name: str) -> None:
    await fill(documents)
    told, telling = await listed(documents.log), Telling()
    with suppress(StoreConflictError):
        assert await REFUSED[name](documents, telling) in (None, False)
    assert await listed(documents.log) == told


async def test_what_is_ended_or_revoked_already_is_not_noted_again(documents: Documents) -> None:
    await fill(documents)
    await CHANGES["revoke a key"](documents, noted)
    await documents.prices.end("acme", RULE.id, at(3), now=at(2), audit=noted)
    told = await listed(documents.log)
    assert await CHANGES["revoke a key"](documents, Telling()) is not None
    for name in ("change a key", "rotate a key"):
        with pytest.raises(StoreConflictError):
            await CHANGES[name](documents, Telling())
    with pytest.raises(StoreConflictError):
        await documents.prices.end("acme", RULE.id, at(9), now=at(5), audit=Telling())
    assert await listed(documents.log) == told


async def test_of_writes_at_once_each_tells_what_it_found(documents: Documents) -> None:
    """And of a transaction that begins anew only what was committed is there."""
    await fill(documents)

    def audit(before: Any, after: Any) -> AuditEvent:
        told = {"before": {"revision": before.revision}, "after": {"revision": after.revision}}
        return audit_event(request_id="at once", subject_id=KEY.id, **told)

    await asyncio.gather(
        *(
            documents.api_keys.rotate(
                "acme", KEY.id, f"digest {n}", hint=f"aim_{n}", until=at(9), at=at(n), audit=audit
            )
            for n in range(8)
        )
    )
    events = [each for each in await listed(documents.log, subject_id=KEY.id) if each.request_id == "at once"]
    revisions = sorted((each.before["revision"], each.after["revision"]) for each in events if each.before)
    assert revisions == [(number, number + 1) for number in range(1, 9)]
