"""In-flight logs of several processes in one data folder: a slot for each, and no slot whose notes nobody finds.

Slot 0 is the folder itself, where a process that is alone has its log; the others are folders in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .inflight import FILE_NAME, FileInflightLog, FolderInUseError, open_inflight_log
from .ports import StoreUnavailableError

MAX_SLOTS = 128
"""Twice as many as there may be processes: one that ends may still hold its own."""
PREFIX = "process-"


@contextmanager
def open_inflight_slot(folder: Path, *, several: bool) -> Iterator[FileInflightLog]:
    """The log of the first slot that no process holds; of slot 0 and no other unless `several` may share the folder.
    What was left in slots that nobody holds, by processes that were killed or that there are fewer of now, is among
    what the log has `abandoned`.

    Raises FolderInUseError where no slot is free, StoreUnavailableError when the folder can't be written.
    """
    with ExitStack() as stack:
        log, own = _first_free(folder, MAX_SLOTS if several else 1, stack)
        for slot in (folder, *sorted(folder.glob(f"{PREFIX}*"))):
            if slot != own and (slot / FILE_NAME).exists():
                with suppress(FolderInUseError):
                    _take_over(slot, log)
        yield log


def _first_free(folder: Path, slots: int, stack: ExitStack) -> tuple[FileInflightLog, Path]:
    for number in range(slots):
        slot = folder / f"{PREFIX}{number}" if number else folder
        try:
            slot.mkdir(exist_ok=True)
            return stack.enter_context(open_inflight_log(slot)), slot
        except OSError as error:
            raise StoreUnavailableError(f"the data folder {slot} can't be used: {error.strerror}") from error
        except FolderInUseError:
            continue
    raise FolderInUseError(f"the data folder {folder} is in use by another process")


def _take_over(slot: Path, log: FileInflightLog) -> None:
    """First they are in the one, then they end in the other: a kill between leaves an entry twice, and an entry is
    booked once however often it is found."""
    with open_inflight_log(slot) as other:
        if left := other.abandoned():
            log.take_over(left)
            other.end(*left)
