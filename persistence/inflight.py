"""Attempts in flight, noted in a file: what a killed process leaves for its successor."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import orjson
import structlog

from .ports import StoreUnavailableError
from .records import CostSource, LedgerEntry, Outcome

FILE_NAME = "inflight.jsonl"
LOCK_NAME = "inflight.lock"
COMPACT_AT_BYTES = 8 * 1024 * 1024

log = structlog.get_logger("inflight")

_Key = tuple[datetime, str, int]


class FolderInUseError(StoreUnavailableError):
    """Another process holds the folder's in-flight log."""


class FileInflightLog:
    """An append-only file, one JSON line per record: an entry begins as an object, its key as an array ends it.

    Each record is one unbuffered write: it outlives the process, not a loss of power. Opened by `open_inflight_log`.
    """

    def __init__(self, folder: Path, *, compact_at_bytes: int = COMPACT_AT_BYTES) -> None:
        self._path = folder / FILE_NAME
        self._compact_at_bytes = compact_at_bytes
        self._abandoned = _replay(self._path)
        self._live = {key: _encode(entry) for key, entry in self._abandoned.items()}
        self._file, self._size, self._bound = -1, 0, 0
        self._compact()

    def begin(self, entry: LedgerEntry) -> None:
        """Note an entry; one with the same key is replaced. Raises ValueError for an entry that JSON can't hold."""
        if entry.time.tzinfo is None:
            raise ValueError("an entry's time must be aware")
        record = _encode(entry)
        self._append(record)
        key = _key(entry)
        self._live[key] = record
        self._abandoned.pop(key, None)

    def end(self, *entries: LedgerEntry) -> None:
        """Forget entries, in one write. Raises StoreUnavailableError: then the next process may find them again."""
        ended = []
        for key in map(_key, entries):
            self._abandoned.pop(key, None)
            if self._live.pop(key, None) is not None:
                ended.append(orjson.dumps(key, option=orjson.OPT_APPEND_NEWLINE))
        if not ended:
            return
        self._append(b"".join(ended))
        if self._size > self._bound:
            self._try_compact()

    def abandoned(self) -> Sequence[LedgerEntry]:
        return tuple(self._abandoned.values())

    def close(self) -> None:
        os.close(self._file)
        self._file = -1

    def _append(self, record: bytes) -> None:
        try:
            if os.write(self._file, record) < len(record):  # the disk filled up within the record: take it back
                os.ftruncate(self._file, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} can't be written: {error.strerror}") from error
        self._size += len(record)

    def _try_compact(self) -> None:
        try:
            self._compact()
        except OSError as error:
            self._bound += self._compact_at_bytes  # the long file still serves; no retry with every call
            log.warning("in-flight log can't be compacted", path=str(self._path), reason=error.strerror)

    def _compact(self) -> None:
        """Write the live records into a new file and put it in the old one's place at once."""
        fresh_path = self._path.with_suffix(".new")
        fresh = os.open(fresh_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        records = memoryview(b"".join(self._live.values()))
        try:
            written = 0
            while written < len(records):
                written += os.write(fresh, records[written:])
            fresh_path.replace(self._path)
        except OSError:
            os.close(fresh)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = fresh, written
        self._bound = max(self._compact_at_bytes, 2 * written)


@contextmanager
def open_inflight_log(folder: Path, *, compact_at_bytes: int = COMPACT_AT_BYTES) -> Iterator[FileInflightLog]:
    """The folder's log, held by this process alone. `compact_at_bytes`: the size past which a file is rewritten.

    Raises FolderInUseError while another process has it open, StoreUnavailableError when the folder can't be written.
    """
    try:
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreUnavailableError(f"the data folder {folder} can't be used: {error.strerror}") from error
    try:
        log = _open_locked(folder, lock, compact_at_bytes)
        try:
            yield log
        finally:
            log.close()
    finally:
        os.close(lock)


def _open_locked(folder: Path, lock: int, compact_at_bytes: int) -> FileInflightLog:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return FileInflightLog(folder, compact_at_bytes=compact_at_bytes)
    except BlockingIOError as error:
        raise FolderInUseError(f"the data folder {folder} is in use by another process") from error
    except OSError as error:
        raise StoreUnavailableError(f"the data folder {folder} can't be used: {error.strerror}") from error


def _key(entry: LedgerEntry) -> _Key:
    return entry.time, entry.completion_id, entry.attempt


def _encode(entry: LedgerEntry) -> bytes:
    try:
        return orjson.dumps(entry, default=_plain, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError as error:  # orjson's class for what JSON can't hold, such as a lone surrogate
        raise ValueError(f"the entry can't be written as JSON: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _decode(record: Mapping[str, Any]) -> LedgerEntry:
    values = dict(record)
    cost, corrected_at = values.get("cost"), values.get("corrected_at")
    values["time"] = datetime.fromisoformat(values["time"])
    values["corrected_at"] = None if corrected_at is None else datetime.fromisoformat(corrected_at)
    values["cost"] = None if cost is None else Decimal(cost)
    values["outcome"] = Outcome(values["outcome"])
    values["cost_source"] = CostSource(values["cost_source"])
    return LedgerEntry(**values)


def _replay(path: Path) -> dict[_Key, LedgerEntry]:
    """What was begun and never ended, in the order of its begin."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    begun: dict[_Key, LedgerEntry] = {}
    unreadable = 0
    for line in data.split(b"\n")[:-1]:  # what has no line end was cut off by a kill: its begin never returned
        try:
            record = orjson.loads(line)
            if isinstance(record, list):
                time, completion_id, attempt = record
                begun.pop((datetime.fromisoformat(time), completion_id, attempt), None)
            else:
                entry = _decode(record)
                begun[_key(entry)] = entry
        except (ValueError, TypeError, KeyError, InvalidOperation):
            unreadable += 1
    if unreadable:
        log.error("in-flight records can't be read and are left out", path=str(path), count=unreadable)
    return begun
