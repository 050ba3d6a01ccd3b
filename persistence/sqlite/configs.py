"""The embedded configs: two tables of the one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Never

import orjson

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
from .database import Database, Parameters, transaction
from .times import EPOCH, MILLISECOND, milliseconds

_COLUMN_OF = {"draft_text": "draft", "text": "content"}
_NAMES = tuple(_COLUMN_OF.get(field.name, field.name) for field in fields(Config))
_COLUMNS = ", ".join(_NAMES)
_VERSION_NAMES = tuple(_COLUMN_OF.get(field.name, field.name) for field in fields(ConfigVersion))
_VERSION_COLUMNS = ", ".join(_VERSION_NAMES)
_WRITTEN = (*_NAMES, "model", "labels", "description")
_THE_CONFIG = "organisation = :organisation AND id = :id"
_SET_DRAFT = "draft = :draft, model = :model, labels = :labels, description = :description"
_ORDERS = {ConfigOrder.UPDATED: "updated_at DESC, slug DESC", ConfigOrder.SLUG: "slug"}

# Built of the texts in this file: values are bound.
_CREATE = f"INSERT INTO configs ({', '.join(_WRITTEN)}) VALUES ({', '.join(f':{name}' for name in _WRITTEN)})"  # noqa: S608
_BY_ID = f"SELECT {_COLUMNS} FROM configs WHERE {_THE_CONFIG}"  # noqa: S608
_BY_SLUG = f"SELECT {_COLUMNS} FROM configs WHERE organisation = :organisation AND slug = :slug"  # noqa: S608
_CHANGE = f"""
    UPDATE configs SET {{changes}}, revision = revision + 1, updated_at = :at
    WHERE {_THE_CONFIG} AND revision = :expected RETURNING {_COLUMNS}
"""  # noqa: S608
_ADD_VERSION = f"""
    INSERT INTO config_versions ({_VERSION_COLUMNS})
    SELECT organisation, id, 1 + coalesce((
        SELECT max(v.number) FROM config_versions AS v WHERE v.organisation = c.organisation AND v.config_id = c.id
    ), 0), draft, :at, :by
    FROM configs AS c WHERE {_THE_CONFIG} AND revision = :expected RETURNING number
"""  # noqa: S608
_VERSION = f"""
    SELECT {_VERSION_COLUMNS} FROM config_versions
    WHERE organisation = :organisation AND config_id = :id AND number = :number
"""  # noqa: S608
_VERSIONS = f"""
    SELECT {_VERSION_COLUMNS} FROM config_versions
    WHERE organisation = :organisation AND config_id = :id AND (:before IS NULL OR number < :before)
    ORDER BY number DESC LIMIT :limit
"""  # noqa: S608
_PAGE = f"SELECT {_COLUMNS} FROM configs WHERE {{conditions}} ORDER BY {{order}} LIMIT :limit"  # noqa: S608


class SQLiteConfigs:
    """`persistence.ports.ConfigStore` in two tables. Every method raises as `Database` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, config: Config, *, audit: Audit[Config]) -> None:
        row = {
            "id": config.id,
            "organisation": config.organisation,
            "slug": config.slug,
            "revision": config.revision,
            "created_at": _stamp(config.created_at),
            "updated_at": _stamp(config.updated_at),
            "published": config.published,
            "archived_at": _stamp_or_none(config.archived_at),
            **_draft(config.draft_text, config.draft),
        }

        def create(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                _create(connection, row)
                add_event(connection, audit(None, config))

        await self._database.write(create)

    async def by_id(self, organisation: str, config_id: str) -> Config | None:
        return _first(await self._database.look_up(_BY_ID, {"organisation": organisation, "id": config_id}))

    async def by_slug(self, organisation: str, slug: str) -> Config | None:
        return _first(await self._database.look_up(_BY_SLUG, {"organisation": organisation, "slug": slug}))

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
        asked = _change(organisation, config_id, expected_revision, at) | _draft(encoded(draft), draft)
        return await self._change(_SET_DRAFT, asked, audit)

    async def publish_draft(
        self, organisation: str, config_id: str, *, expected_revision: int, at: datetime, by: str, audit: Audit[Config]
    ) -> Config | None:
        asked = _change(organisation, config_id, expected_revision, at) | {"by": by}
        return await self._database.write(lambda connection: _publish_draft(connection, asked, audit))

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
        asked = _change(organisation, config_id, expected_revision, at) | {"number": number}
        return await self._database.write(lambda connection: _publish_version(connection, asked, audit))

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
        asked = _change(organisation, config_id, expected_revision, at) | {"archived_at": _stamp_or_none(archived_at)}
        return await self._change("archived_at = :archived_at", asked, audit)

    async def version(self, organisation: str, config_id: str, number: int) -> ConfigVersion | None:
        asked: Parameters = {"organisation": organisation, "id": config_id, "number": number}
        rows = await self._database.look_up(_VERSION, asked)
        return _version(rows[0]) if rows else None

    async def versions(
        self, organisation: str, config_id: str, *, limit: int, before: int | None = None
    ) -> Sequence[ConfigVersion]:
        """Raises ValueError for a limit below 1."""
        asked: Parameters = {"organisation": organisation, "id": config_id, "before": before, "limit": _checked(limit)}
        return [_version(row) for row in await self._database.look_up(_VERSIONS, asked)]

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
        asked: dict[str, str | int | None] = {"organisation": organisation, "limit": _checked(limit)}
        conditions = ["organisation = :organisation", *_conditions(where, asked), *_behind(after, order, asked)]
        statement = _PAGE.format(conditions=" AND ".join(conditions), order=_ORDERS[order])
        return [_config(row) for row in await self._database.report(statement, asked)]

    async def _change(self, changes: str, asked: Parameters, audit: Audit[Config]) -> Config | None:
        def change(connection: sqlite3.Connection) -> Config | None:
            with transaction(connection):
                return _changed(connection, changes, asked, audit)

        return await self._database.write(change)


def _create(connection: sqlite3.Connection, row: Parameters) -> None:
    try:
        connection.execute(_CREATE, row)
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorname != "SQLITE_CONSTRAINT_UNIQUE":
            raise
        raise StoreConflictError(f"the slug {row['slug']!r} is taken", on=Conflict.SLUG) from error


def _publish_draft(connection: sqlite3.Connection, asked: Parameters, audit: Audit[Config]) -> Config | None:
    with transaction(connection):
        added = connection.execute(_ADD_VERSION, asked).fetchall()
        number = added[0][0] if added else None
        return _changed(connection, "published = :number", {**asked, "number": number}, audit)


def _publish_version(connection: sqlite3.Connection, asked: Parameters, audit: Audit[Config]) -> Config | None:
    with transaction(connection):
        if not connection.execute(_VERSION, asked).fetchall():
            return None
        return _changed(connection, "published = :number", asked, audit)


def _changed(connection: sqlite3.Connection, changes: str, asked: Parameters, audit: Audit[Config]) -> Config | None:
    """Compare and set, within a transaction."""
    standing = _first(connection.execute(_BY_ID, asked).fetchall())
    config = _first(connection.execute(_CHANGE.format(changes=changes), asked).fetchall())
    if config is not None:
        add_event(connection, audit(standing, config))
    elif standing is not None:
        _refuse(standing, asked)
    return config


def _refuse(standing: Config, asked: Parameters) -> Never:
    raise StoreConflictError(
        f"{standing.slug!r} has revision {standing.revision}, not {asked['expected']}", on=Conflict.REVISION
    )


def _conditions(where: ConfigFilter, asked: dict[str, str | int | None]) -> Iterator[str]:
    if where.archived is not None:
        yield "archived_at IS NOT NULL" if where.archived else "archived_at IS NULL"
    if where.model is not None:
        asked["model"] = where.model
        yield "model = :model"
    if where.label is not None:
        name, value = where.label
        asked["label"] = _labels({name: value})[1:-2]
        yield "instr(labels, :label)"
    if where.search is not None:
        asked["search"] = where.search.casefold()
        yield "(instr(slug, :search) OR instr(description, :search))"


def _behind(after: ConfigCursor | None, order: ConfigOrder, asked: dict[str, str | int | None]) -> Iterator[str]:
    if after is None:
        return
    asked["after_slug"] = after.slug
    if order is ConfigOrder.SLUG:
        yield "slug > :after_slug"
    elif after.updated_at is None:
        raise ValueError("a place in the order of updates has a time")
    else:
        asked["after_time"] = _stamp(after.updated_at)
        yield "(updated_at, slug) < (:after_time, :after_slug)"


def _change(organisation: str, config_id: str, expected: int, at: datetime) -> dict[str, str | int | None]:
    return {"organisation": organisation, "id": config_id, "expected": expected, "at": _stamp(at)}


def _draft(text: bytes, content: ConfigContent) -> dict[str, str | int | None]:
    return {
        "draft": text.decode(),
        "model": content.model,
        "labels": _labels(content.labels),
        "description": content.description.casefold(),
    }


def _labels(labels: Mapping[str, str]) -> str:
    """JSON with a pair on each line: a line break within a text is escaped, so that a line is a whole pair."""
    return orjson.dumps(dict(labels), option=orjson.OPT_INDENT_2).decode()


def _stamp(time: datetime) -> int:
    if time.microsecond % 1000:
        raise ValueError("a config's times must be whole milliseconds")
    return milliseconds(time)


def _stamp_or_none(time: datetime | None) -> int | None:
    return None if time is None else _stamp(time)


def _checked(limit: int) -> int:
    if limit < 1:
        raise ValueError("limit must be at least 1")
    return limit


def _first(rows: Sequence[Sequence[Any]]) -> Config | None:
    return _config(rows[0]) if rows else None


def _config(row: Sequence[Any]) -> Config:
    values = dict(zip(_NAMES, row, strict=True))
    archived_at = values["archived_at"]
    values.update(
        draft_text=values.pop("draft").encode(),
        created_at=EPOCH + values["created_at"] * MILLISECOND,
        updated_at=EPOCH + values["updated_at"] * MILLISECOND,
        archived_at=None if archived_at is None else EPOCH + archived_at * MILLISECOND,
    )
    return Config(**values)


def _version(row: Sequence[Any]) -> ConfigVersion:
    values = dict(zip(_VERSION_NAMES, row, strict=True))
    values.update(text=values.pop("content").encode(), created_at=EPOCH + values["created_at"] * MILLISECOND)
    return ConfigVersion(**values)
