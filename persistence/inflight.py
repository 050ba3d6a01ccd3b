"""Attempts in flight, noted in a file: what a killed process leaves for its successor. It is the spool too, of entries
that nothing else took.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import orjson
import structlog

from .entry_json import decoded, encoded
from .ports import StoreUnavailableError
from .records import LedgerEntry

FILE_NAME = "inflight.jsonl"
LOCK_NAME = "inflight.lock"
COMPACT_AT_BYTES = 8 * 1024 * 1024

log = structlog.get_logger("inflight")

ENDED_IN_PLACE = b"-"
"""What an entry's line begins with from then on."""

_Key = tuple[datetime, str, int]


class _Note(NamedTuple):
    """A live entry's line, and where the file has lines of its key, in bytes from the beginning."""

    line: bytes
    offsets: tuple[int, ...]


class FolderInUseError(StoreUnavailableError):
    """Another process holds the folder's in-flight log."""


class FileInflightLog:
    """An append-only file, one JSON line per record: an entry begins as an object, its key as an array ends it. On a
    disk that is full, it ends in place: its line is struck out, which takes no room.

    Each record is one unbuffered write: it outlives the process, and a loss of power where it is kept. Opened by
    `open_inflight_log`.
    """

    def __init__(self, folder: Path, *, compact_at_bytes: int = COMPACT_AT_BYTES) -> None:
        self._path = folder / FILE_NAME
        self._compact_at_bytes = compact_at_bytes
        self._abandoned = _replay(self._path)
        self._live = {key: _Note(_line(entry), ()) for key, entry in self._abandoned.items()}
        self._kept: set[_Key] = set()
        self._file, self._size, self._bound = -1, 0, 0
        self._compact()
        self._sync_folder()

    def begin(self, entry: LedgerEntry) -> None:
        """Note an entry; one with the same key is replaced. Raises ValueError for an entry that JSON can't hold."""
        if entry.time.tzinfo is None:
            raise ValueError("an entry's time must be aware")
        key, record = _key(entry), _line(entry)
        earlier = self._live[key].offsets if key in self._live else ()
        self._append(record)
        self._live[key] = _Note(record, (*earlier, self._size - len(record)))
        self._abandoned.pop(key, None)

    async def keep(self, entries: Sequence[LedgerEntry]) -> None:
        """Note entries, on the disk itself when it returns. Raises ValueError as `begin` does."""
        for entry in entries:
            self.begin(entry)
            self._kept.add(_key(entry))
        try:
            file = os.dup(self._file)  # another one may take its place meanwhile
            try:
                await asyncio.to_thread(os.fsync, file)
            finally:
                os.close(file)
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} can't be written: {error.strerror}") from error

    def take_over(self, entries: Sequence[LedgerEntry]) -> None:
        """What another log had `abandoned` is this one's, on the disk itself. Raises StoreUnavailableError."""
        for entry in entries:
            self.begin(entry)
            self._abandoned[_key(entry)] = entry
        try:
            os.fsync(self._file)
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} can't be written: {error.strerror}") from error

    def end(self, *entries: LedgerEntry) -> None:
        """Forget entries, in one write. Raises StoreUnavailableError: then the next process may find them again."""
        ended: list[bytes] = []
        offsets: list[int] = []
        for key in map(_key, entries):
            self._abandoned.pop(key, None)
            self._kept.discard(key)
            if (note := self._live.pop(key, None)) is not None:
                ended.append(orjson.dumps(key, option=orjson.OPT_APPEND_NEWLINE))
                offsets += note.offsets
        if not ended:
            return
        try:
            self._append(b"".join(ended))
        except StoreUnavailableError:
            self._strike_out(offsets)
        if self._size > self._bound:
            self._try_compact()

    def abandoned(self) -> Sequence[LedgerEntry]:
        return tuple(self._abandoned.values())

    def extent(self) -> tuple[int, int]:
        return len(self._live), self._size

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

    def _strike_out(self, offsets: Sequence[int]) -> None:
        try:
            file = os.open(self._path, os.O_WRONLY)  # one that only appends can't write anywhere else
            try:
                for offset in offsets:
                    os.pwrite(file, ENDED_IN_PLACE, offset)
            finally:
                os.close(file)
        except OSError as error:
            raise StoreUnavailableError(f"{self._path} can't be written: {error.strerror}") from error

    def _sync_folder(self) -> None:
        """So that a loss of power leaves the file under its name."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

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
        records = memoryview(b"".join(note.line for note in self._live.values()))
        try:
            written = 0
            while written < len(records):
                written += os.write(fresh, records[written:])
            if self._kept:
                os.fsync(fresh)
            fresh_path.replace(self._path)
        except OSError:
            os.close(fresh)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = fresh, 0
        for key, note in self._live.items():
            self._live[key] = _Note(note.line, (self._size,))
            self._size += len(note.line)
        self._bound = max(self._compact_at_bytes, 2 * written)
        if self._kept:
            self._sync_folder()


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


def _line(entry: LedgerEntry) -> bytes:
    return encoded(entry) + b"\n"


def _replay(path: Path) -> dict[_Key, LedgerEntry]:
    """What was begun and never ended, in the order of its begin."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    begun: dict[_Key, LedgerEntry] = {}
    unreadable = 0
    for line in data.split(b"\n")[:-1]:  # what has no line end was cut off by a kill: its begin never returned
        if line.startswith(ENDED_IN_PLACE):
            continue
        try:
            record = orjson.loads(line)
            if isinstance(record, list):
                time, completion_id, attempt = record
                begun.pop((datetime.fromisoformat(time), completion_id, attempt), None)
            else:
                entry = decoded(record)
                begun[_key(entry)] = entry
        except (ValueError, TypeError):
            unreadable += 1
    if unreadable:
        log.error("in-flight records can't be read and are left out", path=str(path), count=unreadable)
    return begun
