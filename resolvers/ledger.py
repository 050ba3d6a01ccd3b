"""The ledger in use: noted before the vendor is called, committed before the answer leaves.

Group commit without a timer: while one commit runs, entries gather; the next commit takes them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import structlog

from persistence.ports import InflightLog, LedgerStore, PriceStore, StoreUnavailableError
from persistence.records import CompletionFilter, Cursor, LedgerEntry
from persistence.usage_records import UsageCell, UsageSelection

from . import booking
from .errors import ServiceUnavailableError
from .price_book import PriceBook
from .turns import Turns

MAX_WAITING = 10_000
TRIAL_INTERVAL_S = 1.0

log = structlog.get_logger("ledger")


class UnpricedError(ServiceUnavailableError):
    """The price rules that something must be booked by can't be read: it was not booked."""


@dataclass(slots=True)
class _Booking:
    """`owed`: its commit has failed once, its caller knows, and the in-flight log holds its true figures."""

    entry: LedgerEntry
    committed: asyncio.Future[None]
    owed: bool = False


class Ledger:
    """The one writer of entries, and their reader. Opened by `open_ledger`.

    `available` turns False when a commit fails. From then on no attempt begins until the entries that failed are
    committed: by the next entry that is booked, or by a trial that a refused `begin` asks for, one each second.
    """

    def __init__(self, store: LedgerStore, inflight: InflightLog) -> None:
        self.available = True
        self._turns = Turns()
        self._store = store
        self._inflight = inflight
        self._waiting: list[_Booking] = []
        self._owed: list[_Booking] = []  # no more than was in flight and waiting when the store failed
        self._at_work: Sequence[_Booking] = ()  # what the running commit holds
        self._reachable = True  # as far as the store was asked
        self._trouble = ""  # what the store said last when it could not be written
        self._wake = asyncio.Event()
        self._refused: LedgerEntry | None = None
        self._closed = False
        self._next_trial = 0.0

    async def probe(self) -> None:
        """Ask the store whether it can be written: where it can't, no attempt begins until it can. For the start."""
        await self._probe()
        self._wake.set()

    async def _probe(self) -> None:
        try:
            await self._store.append([])
        except StoreUnavailableError as error:
            if self._reachable:
                log.warning("the ledger's store can't be written", reason=str(error))
            self._reachable = False
            self._trouble = str(error)
        else:
            self._reachable = True
        self._tell_availability()

    def begin(self, entry: LedgerEntry) -> None:
        """Note an attempt before it is sent. Raises ServiceUnavailableError: then it must not be sent."""
        if self._closed or len(self._waiting) >= MAX_WAITING:
            raise _unavailable("the usage ledger takes no new calls at the moment")
        if not self.available:
            self._ask_for_trial()
            raise _unavailable("the usage ledger can't be written at the moment")
        try:
            self._inflight.begin(entry)
        except StoreUnavailableError as error:
            self._refused = entry
            raise _unavailable("the usage ledger can't note this call at the moment") from error

    def can_note(self) -> bool:
        """False while calls are refused because they can't be noted; each time that this is asked, it tries again."""
        if self._refused is not None:
            with suppress(StoreUnavailableError):
                self._inflight.begin(self._refused)
                self._inflight.end(self._refused)
                self._refused = None
        return self._refused is None

    def forget(self, *entries: LedgerEntry) -> None:
        """End the notes of entries that are committed, or whose attempts were never sent."""
        try:
            self._inflight.end(*entries)
        except StoreUnavailableError as error:  # at worst they are found, and booked, once more by the next start
            ids = [entry.completion_id for entry in entries]
            log.warning("in-flight entries can't be ended", completion_ids=ids, reason=str(error))

    def book(self, entry: LedgerEntry) -> asyncio.Future[None]:
        """Hand over the entry of an ended attempt; it is committed whatever becomes of the caller.

        The future resolves when it is committed, or fails: with ServiceUnavailableError when it will be committed
        later, with ValueError when no ledger can hold it. It need not be awaited.
        """
        waiting = _Booking(entry, asyncio.get_running_loop().create_future())
        if self._closed:
            self._owe(waiting, StoreUnavailableError("the ledger is closed"))
        else:
            self._waiting.append(waiting)
            self._wake.set()
        return waiting.committed

    async def recover(self, prices: PriceStore) -> int:
        """Book what an earlier process left in flight, by the price rules of its time; how many entries that was. For
        the start, before any call. Raises ServiceUnavailableError; UnpricedError where it has to be called again."""
        left = self._inflight.abandoned()
        books = await _books(left, prices)
        bookings = [self.book(booking.abandoned(entry, books[entry.organisation])) for entry in left]
        results = await asyncio.gather(*bookings, return_exceptions=True)
        for result in results:
            if isinstance(result, ServiceUnavailableError):
                raise result
        return results.count(None)

    async def completion(self, organisation: str, completion_id: str) -> Sequence[LedgerEntry]:
        """One completion's entries by attempt. This and the other reads raise ServiceUnavailableError; the long ones,
        `completions` and `usage`, wait for their organisation's turn and raise as `Turns` does."""
        with _reading():
            return await self._store.completion(organisation, completion_id)

    async def completion_by_key(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        with _reading():
            return await self._store.completion_by_key(organisation, idempotency_key)

    async def key_holder(self, organisation: str, idempotency_key: str) -> str | None:
        """The id of the completion that the key was last used for, its entries committed or not yet."""
        for each in (*self._waiting, *self._at_work, *self._owed):
            if each.entry.idempotency_key == idempotency_key and each.entry.organisation == organisation:
                return each.entry.completion_id
        entries = await self.completion_by_key(organisation, idempotency_key)
        return entries[0].completion_id if entries else None

    async def completions(
        self, organisation: str, *, where: CompletionFilter, limit: int, after: Cursor | None = None
    ) -> Sequence[Sequence[LedgerEntry]]:
        async with self._turns.turn(organisation):
            with _reading():
                return await self._store.completions(organisation, where=where, limit=limit, after=after)

    async def usage(self, organisation: str, asked: UsageSelection) -> Sequence[UsageCell]:
        async with self._turns.turn(organisation):
            with _reading():
                return await self._store.usage(organisation, asked)

    async def write(self) -> None:
        """The writer: one task runs it until `close`, and everything that waits is committed by then."""
        while not self._closed or self._waiting:
            await self._something_to_do()
            self._wake.clear()
            self._at_work = batch = [*self._owed, *self._waiting]
            self._owed, self._waiting = [], []
            if batch or self._reachable:
                await self._commit(batch)
                self._at_work = ()
                self._tell_availability()
            else:
                await self._probe()

    async def _something_to_do(self) -> None:
        """Until an entry waits; while the store is away, a moment: a process that gets no calls mends itself too."""
        if not self._owed and self._reachable:
            await self._wake.wait()
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(TRIAL_INTERVAL_S):
                await self._wake.wait()

    def close(self) -> None:
        """Take no more entries; the writer ends after those that wait, with a last try for those that failed."""
        self._closed = True
        self._wake.set()

    async def _commit(self, batch: Sequence[_Booking]) -> None:
        if not batch:
            return
        try:
            await self._store.append([waiting.entry for waiting in batch])
        except StoreUnavailableError as error:
            self._trouble = str(error)
            for waiting in batch:
                self._owe(waiting, error)
        except Exception as error:  # noqa: BLE001  # one entry that can't be stored must not keep the others out
            if len(batch) == 1:
                self._reject(batch[0], error)
                return
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
        else:
            self._reachable = True
            for waiting in batch:
                if not waiting.committed.done():
                    waiting.committed.set_result(None)
            self.forget(*(waiting.entry for waiting in batch))

    def _owe(self, waiting: _Booking, cause: Exception) -> None:
        """Keep an entry whose commit failed: here for the next try, in the in-flight log for the next start."""
        self._owed.append(waiting)
        if waiting.owed:
            return
        waiting.owed = True
        with suppress(StoreUnavailableError, ValueError):  # the note from its beginning still stands
            self._inflight.begin(waiting.entry)
        _fail(waiting.committed, _unavailable("the usage ledger can't be written at the moment"), cause)

    def _reject(self, waiting: _Booking, error: Exception) -> None:
        entry = waiting.entry
        log.error("entry can't be stored", completion_id=entry.completion_id, attempt=entry.attempt, reason=str(error))
        _fail(waiting.committed, error, None)

    def _ask_for_trial(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_trial:
            self._next_trial = now + TRIAL_INTERVAL_S
            self._wake.set()

    def _tell_availability(self) -> None:
        available = self._reachable and not self._owed
        if not available:
            self._next_trial = asyncio.get_running_loop().time() + TRIAL_INTERVAL_S
        if available is not self.available:
            self.available = available
            if available:
                log.warning("ledger available again", owed=0)
            else:
                log.warning("ledger unavailable", owed=len(self._owed), reason=self._trouble)


@asynccontextmanager
async def open_ledger(store: LedgerStore, inflight: InflightLog) -> AsyncIterator[Ledger]:
    """A ledger and its writer task. Leaving the context commits what waits."""
    ledger = Ledger(store, inflight)
    writer = asyncio.create_task(ledger.write(), name="ledger-writer")
    try:
        yield ledger
    finally:
        ledger.close()
        await writer


async def _books(entries: Sequence[LedgerEntry], prices: PriceStore) -> Mapping[str, PriceBook]:
    """The price book of each entry's organisation."""
    oldest: dict[str, datetime] = {}
    for entry in entries:
        oldest[entry.organisation] = min(entry.time, oldest.get(entry.organisation, entry.time))
    try:
        return {each: PriceBook(await prices.unended(each, since=since)) for each, since in oldest.items()}
    except StoreUnavailableError as error:
        raise UnpricedError("the price rules can't be read at the moment") from error


def _unavailable(message: str) -> ServiceUnavailableError:
    error = ServiceUnavailableError(message)
    error.retry_after_ms = round(TRIAL_INTERVAL_S * 1000)
    return error


def _fail(future: asyncio.Future[None], error: Exception, cause: Exception | None) -> None:
    if not future.done():
        error.__cause__ = cause or error.__cause__
        future.set_exception(error)
        future.exception()  # seen: nobody has to await it


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise _unavailable("the usage ledger can't be read at the moment") from error
