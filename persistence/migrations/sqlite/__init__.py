"""The embedded database's schema: which one a file has, and how it gets the newest."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ...ports import StoreUnavailableError

HEAD = "0018"  # what this release needs; revisions are numbered, so that a newer one is told from an older one


class SchemaVersionError(StoreUnavailableError):
    """The file's schema is older or newer than this release needs. The text says what to do."""


def current(path: Path) -> str | None:
    """The file's revision; None where there is no file or no schema. Raises StoreUnavailableError."""
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'alembic_version'").fetchone():
                return None
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return row[0] if row else None
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"the database {path} can't be read: {error}") from error


def check(path: Path) -> None:
    """Raises SchemaVersionError unless the file has exactly the schema that this release needs."""
    revision = current(path)
    if revision == HEAD:
        return
    if revision is None:
        raise SchemaVersionError(f"there is no database at {path} yet: migrate it first")
    if revision < HEAD:
        raise SchemaVersionError(
            f"the database {path} has schema {revision}, this release needs {HEAD}: migrate it first"
        )
    raise _newer(path, revision)


def migrate(path: Path) -> None:
    """Bring the file to HEAD, creating it where there is none. Quick when there is nothing to do; safe to call twice,
    and from several processes. Raises SchemaVersionError for a newer schema, StoreUnavailableError for a failure."""
    if current(path) == HEAD:
        return
    try:
        with _exclusive(path):
            revision = current(path)  # another process may have migrated while this one waited
            if revision is None or revision < HEAD:
                _upgrade(path)
            elif revision > HEAD:
                raise _newer(path, revision)
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailableError(f"the database {path} can't be migrated: {error}") from error


def _newer(path: Path, revision: str) -> SchemaVersionError:
    return SchemaVersionError(
        f"the database {path} has schema {revision}, this release knows {HEAD}: it was written by a newer release"
    )


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    # A file of its own: closing any descriptor of the database would drop the locks that SQLite holds on it.
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _upgrade(path: Path) -> None:
    """All pending revisions in one transaction: a kill leaves the schema as it was."""
    from alembic import command  # here, not above: a start with nothing to migrate loads no SQLAlchemy
    from alembic.config import Config
    from sqlalchemy import NullPool, create_engine
    from sqlalchemy.exc import DBAPIError

    path.touch(mode=0o600)
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=NullPool)
    config = Config()
    config.set_main_option("script_location", "persistence:migrations/sqlite")
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except DBAPIError as error:
        raise StoreUnavailableError(f"the database {path} can't be migrated: {error.orig}") from error
