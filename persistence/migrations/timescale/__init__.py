"""The schema of the ledger's PostgreSQL: which one a database has, and how it gets the newest."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from ...ports import StoreUnavailableError
from ...timescale.engine import Engine, open_engine
from ...timescale.policies import Edition, Policies
from ...timescale.replica import Readers
from ...timescale.upkeep import keep_up

HEAD = "0002"  # what this release needs; revisions are numbered, so that a newer one is told from an older one

_LOCK = 0x61692D6D  # any number that nobody else in this database takes
_LOCK_TIMEOUT = "10min"
_THERE = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_REVISION = text("SELECT version_num FROM alembic_version")
_EDITION = text("SELECT edition FROM ledger_edition")


class SchemaVersionError(StoreUnavailableError):
    """The database's schema is older or newer than this release needs. The text says what to do."""


async def current(engine: Engine | Readers) -> str | None:
    """The database's revision; None where there is no schema. Raises StoreUnavailableError."""
    [(there,)] = await engine.run(_THERE)
    rows = await engine.run(_REVISION) if there else ()
    return str(rows[0][0]) if rows else None


async def check(engine: Engine | Readers, *, or_newer: bool = False) -> Edition:
    """For which edition the tables were made. Raises SchemaVersionError unless the database has exactly the schema that
    this release needs; `or_newer`: one that a later release has made of it serves too, for who is at work already."""
    revision = await current(engine)
    if revision == HEAD or (or_newer and revision is not None and revision > HEAD):
        [(edition,)] = await engine.run(_EDITION)
        return Edition(edition)
    if revision is not None and revision > HEAD:
        raise _newer(revision)
    found = "no schema" if revision is None else f"schema {revision}"
    raise SchemaVersionError(f"the database has {found}, this release needs {HEAD}: run `ai-middleware migrate`")


async def migrate(url: str, policies: Policies | None = None) -> None:
    """Bring the database to HEAD, all pending revisions in one transaction, and then in order as `policies` want it: a
    server does the latter too. Safe to call twice, and from several places at once. Raises SchemaVersionError for a
    newer schema, StoreUnavailableError for a failure, ValueError for an address that is none."""
    async with open_engine(url, statement_timeout_s=None) as engine:
        if await current(engine) != HEAD:
            async with engine.transaction() as connection:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                await connection.run_sync(_upgrade)
        await keep_up(engine, await check(engine), policies or Policies())


def _upgrade(connection: Connection) -> None:
    """Another place may have migrated while this one waited: then there is nothing to do."""
    there = connection.execute(_THERE).scalar_one()
    revision = connection.execute(_REVISION).scalar() if there else None
    if revision is not None and revision > HEAD:
        raise _newer(revision)
    config = Config()
    config.set_main_option("script_location", "persistence:migrations/timescale")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _newer(revision: str) -> SchemaVersionError:
    return SchemaVersionError(
        f"the database has schema {revision}, this release knows {HEAD}: it was written by a newer release"
    )
