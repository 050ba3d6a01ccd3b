"""Where entries are committed: to the ledger's store, or, while that is away, to a queue that drains into it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import orjson
import structlog
from uuid_utils import uuid7

from persistence.entry_json import decoded, encoded
from persistence.ports import JobQueue, StoreUnavailableError
from persistence.queue_records import Job
from persistence.records import LedgerEntry

LEDGER_JOB = "ledger"
STORE, QUEUE, SPOOL = PLACES = ("store", "queue", "spool")
"""Where an entry can go. The spool is nobody's sink: what no sink took is in it."""
ENTRIES_A_JOB = 100
PROBE_S = 5.0

log = structlog.get_logger("ledger")


class Sink:
    """One of the PLACES, and whether it could be reached when it was last tried. `name` is for people; `append` is as
    LedgerStore's; `patience_s`: for how long it is waited for, where there is another place."""

    def __init__(
        self,
        place: str,
        name: str,
        append: Callable[[Sequence[LedgerEntry]], Awaitable[None]],
        *,
        patience_s: float | None = None,
        takes_corrections: bool = True,
    ) -> None:
        self.place = place
        self.name = name
        self.reachable = True
        self.takes_corrections = takes_corrections
        self._append = append
        self._patience_s = patience_s

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Raises StoreUnavailableError, and ValueError for what can't be stored."""
        try:
            if self._patience_s is None:
                await self._append(entries)
            else:
                await self._in_time(entries, self._patience_s)
        except StoreUnavailableError as error:
            self.tell(str(error))
            raise

    async def probe(self) -> None:
        """Ask whether it can be written."""
        try:
            await self._in_time([], PROBE_S)
        except StoreUnavailableError as error:
            self.tell(str(error))
        else:
            self.tell(None)

    async def _in_time(self, entries: Sequence[LedgerEntry], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._append(entries)
        except TimeoutError as error:
            raise StoreUnavailableError(f"no answer within {seconds:g} seconds") from error

    def tell(self, trouble: str | None) -> None:
        """What keeps it from being reached, as somebody has found out; None where nothing does."""
        if self.reachable and trouble is not None:
            log.warning(f"the {self.name} can't be written", reason=trouble)
        elif not self.reachable and trouble is None:
            log.warning(f"the {self.name} can be written again")
        self.reachable = trouble is None


class QueuedEntries:
    """Entries as jobs, of ENTRIES_A_JOB at most: ids and counts, the texts of a correction never."""

    def __init__(self, queue: JobQueue) -> None:
        self._queue = queue

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Without entries it tells whether any could be queued."""
        if not entries:
            await self._queue.depth()
            return
        parts = [entries[start : start + ENTRIES_A_JOB] for start in range(0, len(entries), ENTRIES_A_JOB)]
        await self._queue.publish([job_of(part) for part in parts])


def job_of(entries: Sequence[LedgerEntry]) -> Job:
    """Raises ValueError for what JSON can't hold."""
    return Job(str(uuid7()), LEDGER_JOB, encoded([*entries]).decode(), datetime.now(UTC))


def entries_of(job: Job) -> Sequence[LedgerEntry]:
    """Raises ValueError for what is none."""
    records = orjson.loads(job.body)
    if not isinstance(records, list):
        raise ValueError("a ledger job is a JSON list")  # noqa: TRY004  # of a value, not of a program's mistake
    return [decoded(record) for record in records]
