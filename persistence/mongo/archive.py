"""All documents of a database in one file, as they were at one moment, and back.

The file is gzip (RFC 1952) of BSON (https://bsonspec.org/): a head with the schema's number, a frame for each document,
and a foot that counts them, without which it is not whole. Indexes and validators are not in it: migrations make them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from ..ports import StoreUnavailableError
from .address import check_address
from .client import DATABASE, SCHEMA, SCHEMA_ID, check_schema

TIMEOUT_MS = 15_000
BATCH = 500
BATCH_BYTES = 16 * 1024 * 1024
SNAPSHOT_TOO_OLD = 239  # https://www.mongodb.com/docs/manual/reference/error-codes/
FORM = 1
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument, tz_aware=True)

Client = MongoClient[RawBSONDocument]


class ArchiveError(Exception):
    """The file is not one that can be put back here. The text says why."""


def write_archive(uri: str, path: Path, *, ca_file: Path | None = None) -> int:
    """Reads the whole database at one moment, while others go on writing; how many documents there were. The server
    keeps that moment for `minSnapshotHistoryWindowInSeconds`, 300 where nothing is set
    (https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/). Raises StoreUnavailableError,
    SchemaVersionError and OSError; then the file is not whole."""
    with _client(uri, ca_file) as client, gzip.open(path, "wb") as file:
        database = client.get_default_database(DATABASE)
        check_schema(_version(client))
        names = sorted(name for name in database.list_collection_names() if not name.startswith("system."))
        counts: dict[str, int] = {}
        file.write(bson.encode({"form": FORM, "schema": _version(client), "database": database.name}))
        with client.start_session(snapshot=True) as session:
            for name in names:
                counts[name] = 0
                if name == SCHEMA:
                    continue
                for document in database[name].find({}, session=session, batch_size=BATCH):
                    file.write(bson.encode({"collection": name, "document": document}))
                    counts[name] += 1
        file.write(bson.encode({"counts": counts}))
        return sum(counts.values())


def read_archive(uri: str, path: Path, *, ca_file: Path | None = None) -> int:
    """Puts all of it into a database that is migrated and empty; how many documents there were. Raises ArchiveError
    before anything is written where it can't be put back, StoreUnavailableError where it breaks off: then start anew
    with an empty database."""
    counts = _looked_through(path)
    with _client(uri, ca_file) as client:
        database = client.get_default_database(DATABASE)
        filled = [name for name in sorted(counts) if name != SCHEMA and database[name].find_one() is not None]
        if filled:
            raise ArchiveError(f"the database is not empty: there are documents in {', '.join(filled)}")
        _check_form(_head(path), _version(client))
        for batch in _batches(path):
            by_name: dict[str, list[Any]] = {}
            for frame in batch:
                by_name.setdefault(frame["collection"], []).append(frame["document"])
            for name, documents in by_name.items():
                database[name].insert_many(documents, ordered=False)
    return sum(counts.values())


def _looked_through(path: Path) -> dict[str, int]:
    """How many documents of each collection there are, by its foot and by themselves."""
    found: dict[str, int] = {}
    foot: dict[str, int] | None = None
    for frame in _read(path):
        if "counts" in frame:
            foot = dict(frame["counts"])
        elif "collection" in frame:
            found[frame["collection"]] = found.get(frame["collection"], 0) + 1
    if foot is None:
        raise ArchiveError(f"{path} is not whole: its end is missing")
    if {name: count for name, count in foot.items() if count} != found:
        raise ArchiveError(f"{path} is not whole: it has not the documents that its end counts")
    return foot


def _head(path: Path) -> RawBSONDocument:
    return next(_read(path))


def _check_form(head: RawBSONDocument, version: int | None) -> None:
    if head.get("form") != FORM:
        raise ArchiveError("it is an archive of a form that this release does not know")
    if head["schema"] != version:
        raise ArchiveError(
            f"it is of schema {head['schema']}, the database has {version}: run the `migrate` of the release that "
            "wrote it, put it back, and migrate further then"
        )


def _batches(path: Path) -> Iterator[list[RawBSONDocument]]:
    """Its documents' frames; a batch is in memory whole, however large documents are."""
    batch: list[RawBSONDocument] = []
    held = 0
    for frame in _read(path):
        if "collection" not in frame:
            continue
        batch.append(frame)
        held += len(frame.raw)
        if len(batch) == BATCH or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _read(path: Path) -> Iterator[RawBSONDocument]:
    try:
        with gzip.open(path, "rb") as file:
            yield from bson.decode_file_iter(_binary(file), _RAW)
    except (OSError, EOFError, BSONError) as error:
        raise ArchiveError(f"{path} can't be read as an archive: {type(error).__name__}") from None


def _binary(file: Any) -> BinaryIO:
    found: BinaryIO = file
    return found


def _version(client: Client) -> int | None:
    found = client.get_default_database(DATABASE)[SCHEMA].find_one({"_id": SCHEMA_ID})
    return None if found is None else int(found["version"])


@contextmanager
def _client(uri: str, ca_file: Path | None) -> Iterator[Client]:
    check_address(uri)
    trusted: dict[str, Any] = {} if ca_file is None else {"tls": True, "tlsCAFile": str(ca_file)}
    try:
        with MongoClient(
            uri,
            document_class=RawBSONDocument,
            serverSelectionTimeoutMS=TIMEOUT_MS,
            connectTimeoutMS=TIMEOUT_MS,
            w="majority",
            appname="ai-middleware-backup",
            **trusted,
        ) as client:
            yield client
    except PyMongoError as error:  # its text may quote documents and addresses
        if isinstance(error, OperationFailure) and error.code == SNAPSHOT_TOO_OLD:
            raise StoreUnavailableError(
                "MongoDB did not keep the moment that was read for so long: raise minSnapshotHistoryWindowInSeconds"
            ) from None
        raise StoreUnavailableError(f"MongoDB: {type(error).__name__}") from None
