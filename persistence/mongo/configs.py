"""Configs on MongoDB: `configs`, and `config_versions`, which are never changed.

The key of a document begins with its organisation. Drafts are kept as the JSON text that they are: BSON has neither
their whole numbers of 64 bits without a sign nor any text as a name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Never

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from ..config_records import (
    Config,
    ConfigContent,
    ConfigCursor,
    ConfigFilter,
    ConfigOrder,
    ConfigVersion,
    encoded,
)
from ..ports import Audit, Conflict, StoreConflictError
from .audit import add_event
from .client import Database, Document, Mongo, Session
from .times import stamp

_ORDERS = {
    ConfigOrder.UPDATED: [("updated_at", DESCENDING), ("_id.slug", DESCENDING)],
    ConfigOrder.SLUG: [("_id", 1)],
}


class MongoConfigs:
    """`persistence.ports.ConfigStore` in two collections. Every method raises as `Mongo` does."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def create(self, config: Config, *, audit: Audit[Config]) -> None:
        document = {
            "_id": {"organisation": config.organisation, "slug": config.slug},
            "id": config.id,
            "revision": config.revision,
            "created_at": stamp(config.created_at),
            "updated_at": stamp(config.updated_at),
            "published": config.published,
            "versions": 0,
            "archived_at": _stamp_or_none(config.archived_at),
            **_draft(config.draft_text, config.draft),
        }

        async def create(database: Database, session: Session) -> None:
            await _create(database, document, session)
            await add_event(database, audit(None, config), session)

        await self._mongo.transaction(create)

    async def by_id(self, organisation: str, config_id: str) -> Config | None:
        return _config(await self._mongo.look_up(lambda database: _standing(database, organisation, config_id)))

    async def by_slug(self, organisation: str, slug: str) -> Config | None:
        key = {"organisation": organisation, "slug": slug}
        return _config(await self._mongo.look_up(lambda database: database.configs.find_one({"_id": key})))

    async def save_draft(
        self,
        organisation: str,
        config_id: str,
        draft: ConfigContent,
        *,
        expected_revision: int,
        at: datetime,
        audit: Audit[Config],
    ) -> Config | None:
        changes = {"updated_at": stamp(at), **_draft(encoded(draft), draft)}
        return await self._change(organisation, config_id, _next(changes), expected_revision, audit)

    async def publish_draft(
        self, organisation: str, config_id: str, *, expected_revision: int, at: datetime, by: str, audit: Audit[Config]
    ) -> Config | None:
        time = stamp(at)
        number, revision = {"$add": ["$versions", 1]}, {"$add": ["$revision", 1]}
        changes = [{"$set": {"versions": number, "published": number, "revision": revision, "updated_at": time}}]

        async def add_version(database: Database, session: Session, published: Document) -> None:
            key = {"organisation": organisation, "config_id": config_id, "number": published["versions"]}
            version = {"_id": key, "content": published["draft"], "created_at": time, "created_by": by}
            await database.config_versions.insert_one(version, session=session)

        return await self._change(organisation, config_id, changes, expected_revision, audit, and_then=add_version)

    async def publish_version(
        self,
        organisation: str,
        config_id: str,
        number: int,
        *,
        expected_revision: int,
        at: datetime,
        audit: Audit[Config],
    ) -> Config | None:
        changes = {"updated_at": stamp(at), "published": number}
        if await self.version(organisation, config_id, number) is None:  # once there, it stays
            return None
        return await self._change(organisation, config_id, _next(changes), expected_revision, audit)

    async def archive(
        self,
        organisation: str,
        config_id: str,
        archived_at: datetime | None,
        *,
        expected_revision: int,
        at: datetime,
        audit: Audit[Config],
    ) -> Config | None:
        changes = {"updated_at": stamp(at), "archived_at": _stamp_or_none(archived_at)}
        return await self._change(organisation, config_id, _next(changes), expected_revision, audit)

    async def version(self, organisation: str, config_id: str, number: int) -> ConfigVersion | None:
        key = {"organisation": organisation, "config_id": config_id, "number": number}
        found = await self._mongo.look_up(lambda database: database.config_versions.find_one({"_id": key}))
        return None if found is None else _version(found)

    async def versions(
        self, organisation: str, config_id: str, *, limit: int, before: int | None = None
    ) -> Sequence[ConfigVersion]:
        """Raises ValueError for a limit below 1."""
        _check(limit)
        config = {"organisation": organisation, "config_id": config_id}
        end = {**config, "number": MaxKey() if before is None else before}
        asked = {"_id": {"$gt": {**config, "number": MinKey()}, "$lt": end}}
        found = await self._mongo.report(
            lambda database: database.config_versions.find(asked).sort("_id", DESCENDING).limit(limit).to_list(limit)
        )
        return [_version(each) for each in found]

    async def page(
        self,
        organisation: str,
        *,
        where: ConfigFilter,
        order: ConfigOrder,
        limit: int,
        after: ConfigCursor | None = None,
    ) -> Sequence[Config]:
        """Raises ValueError for a limit below 1."""
        _check(limit)
        asked = {"$and": [*_conditions(where), _behind(organisation, after, order)]}
        found = await self._mongo.report(
            lambda database: database.configs.find(asked).sort(_ORDERS[order]).limit(limit).to_list(limit)
        )
        return [_read(each) for each in found]

    async def _change(
        self,
        organisation: str,
        config_id: str,
        changes: Document | list[Document],
        expected: int,
        audit: Audit[Config],
        *,
        and_then: Callable[[Database, Session, Document], Awaitable[None]] | None = None,
    ) -> Config | None:
        """Compare and set."""
        scope = _scope(organisation, config_id)

        async def change(database: Database, session: Session) -> Config | None:
            standing = _config(await database.configs.find_one(scope, session=session))
            if standing is None:
                return None
            if standing.revision != expected:
                _refuse(standing, expected)
            changed: Document = await database.configs.find_one_and_update(
                scope, changes, return_document=ReturnDocument.AFTER, session=session
            )
            if and_then is not None:
                await and_then(database, session, changed)
            config = _read(changed)
            await add_event(database, audit(standing, config), session)
            return config

        return await self._mongo.transaction(change)


async def _create(database: Database, document: Document, session: Session) -> None:
    try:
        await database.configs.insert_one(document, session=session)
    except DuplicateKeyError as error:
        if (error.details or {}).get("keyPattern") != {"_id": 1}:
            raise ValueError("a config of the organisation has the id") from None
        raise StoreConflictError(f"the slug {document['_id']['slug']!r} is taken", on=Conflict.SLUG) from None


async def _standing(database: Database, organisation: str, config_id: str) -> Document | None:
    found: Document | None = await database.configs.find_one(_scope(organisation, config_id))
    return found


def _next(changes: Document) -> Document:
    return {"$set": changes, "$inc": {"revision": 1}}


def _scope(organisation: str, config_id: str) -> Document:
    return {"_id.organisation": organisation, "id": config_id}


def _refuse(standing: Config, expected: int) -> Never:
    raise StoreConflictError(
        f"{standing.slug!r} has revision {standing.revision}, not {expected}", on=Conflict.REVISION
    )


def _conditions(where: ConfigFilter) -> Iterator[Document]:
    if where.archived is not None:
        yield {"archived_at": {"$ne": None} if where.archived else None}
    if where.model is not None:
        yield {"model": where.model}
    if where.label is not None:
        name, value = where.label
        yield {"labels": {"name": name, "value": value}}
    if where.search is not None:
        needle = {"$literal": where.search.casefold()}
        yield {"$expr": {"$or": [{"$gte": [{"$indexOfBytes": [text, needle]}, 0]} for text in ("$_id.slug", "$text")]}}


def _behind(organisation: str, after: ConfigCursor | None, order: ConfigOrder) -> Document:
    if order is ConfigOrder.SLUG:
        start = {"organisation": organisation, "slug": MinKey() if after is None else after.slug}
        return {"_id": {"$gt": start, "$lt": {"organisation": organisation, "slug": MaxKey()}}}
    scope: Document = {"_id.organisation": organisation}
    if after is None:
        return scope
    if after.updated_at is None:
        raise ValueError("a place in the order of updates has a time")
    time = stamp(after.updated_at)
    return {**scope, "$or": [{"updated_at": {"$lt": time}}, {"updated_at": time, "_id.slug": {"$lt": after.slug}}]}


def _draft(text: bytes, content: ConfigContent) -> Document:
    """`text` is what a search looks at."""
    return {
        "draft": text.decode(),
        "model": content.model,
        "labels": [{"name": name, "value": value} for name, value in content.labels.items()],
        "text": content.description.casefold(),
    }


def _stamp_or_none(time: datetime | None) -> Any:
    return None if time is None else stamp(time)


def _check(limit: int) -> None:
    if limit < 1:
        raise ValueError("limit must be at least 1")


def _config(found: Document | None) -> Config | None:
    return None if found is None else _read(found)


def _read(found: Document) -> Config:
    return Config(
        id=found["id"],
        organisation=found["_id"]["organisation"],
        slug=found["_id"]["slug"],
        revision=found["revision"],
        draft_text=found["draft"].encode(),
        created_at=found["created_at"],
        updated_at=found["updated_at"],
        published=found["published"],
        archived_at=found["archived_at"],
    )


def _version(found: Document) -> ConfigVersion:
    key = found["_id"]
    return ConfigVersion(
        organisation=key["organisation"],
        config_id=key["config_id"],
        number=key["number"],
        text=found["content"].encode(),
        created_at=found["created_at"],
        created_by=found["created_by"],
    )
