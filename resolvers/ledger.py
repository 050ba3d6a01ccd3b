"""The ledger in use: noted before the vendor is called, committed before the answer leaves.

Group commit without a timer: while one commit runs, entries gather; the next commit takes them all.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from decimal import Decimal

import structlog

from persistence.ports import InflightLog, JobQueue, LedgerStore, PriceStore, StoreUnavailableError
from persistence.records import CompletionFilter, Cursor, LedgerEntry
from persistence.usage_records import UsageCell, UsageSelection

from . import booking
from .beside import beside
from .errors import ServiceUnavailableError
from .observing import UNOBSERVED, Observer
from .pending import Backlog, Booking, backlog_of
from .price_book import PriceBook
from .sinks import QUEUE, SPOOL, STORE, QueuedEntries, Sink
from .tracing import UNTRACED, Tracer
from .turns import Turns

MAX_WAITING = 10_000
MAX_QUEUED_KEYS = 100_000
TRIAL_INTERVAL_S = 1.0
PATIENCE_S = 3.0
"""For how long a commit waits for the store, where there is a queue."""

log = structlog.get_logger("ledger")


class UnpricedError(ServiceUnavailableError):
    """The price rules that something must be booked by can't be read: it was not booked."""


class Ledger:
    """The one writer of entries, and their reader. Opened by `open_ledger`.

    While the store is away, entries wait in the queue, where there is one. What neither takes is kept in the in-flight
    log, the spool: from then on `available` is False, and no attempt begins until one of them took what is owed. Each
    is asked once a second whether it is back.
    """

    def __init__(
        self,
        store: LedgerStore,
        inflight: InflightLog,
        queue: JobQueue | None = None,
        observer: Observer = UNOBSERVED,
        tracer: Tracer = UNTRACED,
    ) -> None:
        self.available = True
        self._observer = observer
        self._tracer = tracer
        self._turns = Turns()
        self._store = store
        self._inflight = inflight
        self._sinks = _sinks(store, queue)
        self._waiting: list[Booking] = []
        self._owed: list[Booking] = []  # no more than was in flight and waiting when both were gone
        self._at_work: Sequence[Booking] = ()  # what the running commit holds
        self._wake = asyncio.Event()
        self._missing = asyncio.Event()  # a place to write to
        self._refused: LedgerEntry | None = None
        self._queued_keys: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._closed = False

    @property
    def readable(self) -> bool:
        """Whether the store could be reached when it was last tried."""
        return self._sinks[0].reachable

    def backlog(self) -> Backlog:
        return backlog_of(self._owed, (*self._at_work, *self._waiting))

    async def probe(self) -> None:
        """Ask whether entries can be written: where they can't, no attempt begins until they can. For the start."""
        await asyncio.gather(*(sink.probe() for sink in self._sinks))
        self._tell_availability()

    def begin(self, entry: LedgerEntry) -> None:
        """Note an attempt before it is sent. Raises ServiceUnavailableError: then it must not be sent."""
        if self._closed or len(self._waiting) >= MAX_WAITING:
            raise _unavailable("the usage ledger takes no new calls at the moment")
        if not self.available:
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

        The future resolves when it is committed, queued or spooled, so that it is in the ledger or will be. It fails
        with ServiceUnavailableError when no more than its note is left of it, with ValueError when no ledger can hold
        it. It need not be awaited.
        """
        loop = asyncio.get_running_loop()
        waiting = Booking(entry, loop.create_future(), loop.time(), self._tracer.current())
        if self._closed:
            self._note(waiting)
            _fail(waiting.committed, _unavailable("the usage ledger is closed"), None)
        else:
            self._waiting.append(waiting)
            self._wake.set()
        return waiting.committed

    async def recover(self, prices: PriceStore) -> int:
        """Book what an earlier process left in flight; how many entries that was. For the start, before any call.
        Raises as `book_left`."""
        return await self.book_left(self._inflight.abandoned(), prices)

    async def book_left(self, left: Sequence[LedgerEntry], prices: PriceStore) -> int:
        """Book what a process that is gone left, by the price rules of its time; how many entries could be. Raises
        ServiceUnavailableError; UnpricedError where it has to be called again."""
        books = await _books(left, prices)
        ended = [booking.abandoned(entry, books[entry.organisation]) for entry in left]
        bookings = [self.book(entry) for entry in ended]
        for entry in ended:
            self._observer.attempted(entry, "chat")
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
        """The id of the completion that the key was last used for, its entries committed, queued or not yet."""
        for each in (*self._waiting, *self._at_work, *self._owed):
            if each.entry.idempotency_key == idempotency_key and each.entry.organisation == organisation:
                return each.entry.completion_id
        entries = await self._by_key_in_time(organisation, idempotency_key)
        return entries[0].completion_id if entries else self._queued_keys.get((organisation, idempotency_key))

    async def _by_key_in_time(self, organisation: str, idempotency_key: str) -> Sequence[LedgerEntry]:
        """A completion waits for it. Where that is in vain and there is a queue, the next ones need not."""
        if len(self._sinks) == 1:
            return await self.completion_by_key(organisation, idempotency_key)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.completion_by_key(organisation, idempotency_key)
        except (TimeoutError, ServiceUnavailableError) as error:
            self._sinks[0].tell(f"a key could not be looked up: {error or 'no answer in time'}")
            self._missing.set()
            raise _unavailable("the usage ledger can't be read at the moment") from error

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

    async def spent(self, organisation: str, asked: UsageSelection) -> Decimal:
        """USD, of what has a cost; at once, for completions wait for it."""
        with _reading():
            cells = await self._store.usage(organisation, asked)
        return sum((cell.sums.cost for cell in cells), Decimal(0))

    async def write(self) -> None:
        """The writer: one task runs it until `close`, and everything that waits is committed by then."""
        while not self._closed or self._waiting:
            await self._wake.wait()
            self._wake.clear()
            self._at_work = batch = [*self._owed, *self._waiting]
            self._owed, self._waiting = [], []
            if batch:
                try:
                    await self._commit(batch)
                except Exception:  # a defect of ours: the writer is the only one, and must not end
                    log.exception("a commit went wrong: it is made once more")
                    self._owed.extend(waiting for waiting in batch if waiting not in self._owed)
                    self._missing.set()
            self._at_work = ()
            self._tell_availability()

    async def mend(self) -> None:
        """Looks for the places that are away; one task runs it, endlessly."""
        while True:
            await self._missing.wait()
            await asyncio.sleep(TRIAL_INTERVAL_S)
            await asyncio.gather(*(sink.probe() for sink in self._sinks if not sink.reachable))
            self._tell_availability()
            if self._owed and any(sink.reachable for sink in self._sinks):
                self._wake.set()

    def close(self) -> None:
        """Take no more entries; the writer ends after those that wait, with a last try for those that are owed."""
        self._closed = True
        for sink in self._sinks if self._owed else ():
            sink.reachable = True
        self._wake.set()

    async def _commit(self, batch: Sequence[Booking]) -> None:
        """To the first place that takes it, of those that can be reached."""
        for sink in self._sinks:
            if not sink.reachable:
                continue
            if not sink.takes_corrections:
                batch = await self._without_corrections(batch)
            began = time.perf_counter()
            try:
                with self._tracer.committing([waiting.trace for waiting in batch]):
                    await sink.append([waiting.entry for waiting in batch])
            except StoreUnavailableError:
                continue
            except Exception as error:  # noqa: BLE001  # one entry that can't be stored must not keep the others out
                await self._part(batch, error)
            else:
                if sink is not self._sinks[0]:
                    self._remember_keys(batch)
                self._committed(batch)
                self._observer.committed(sink.place, len(batch), time.perf_counter() - began)
            return
        await self._spool(batch)

    async def _part(self, batch: Sequence[Booking], error: Exception) -> None:
        if len(batch) == 1:
            self._reject(batch[0], error)
            return
        middle = len(batch) // 2
        await self._commit(batch[:middle])
        await self._commit(batch[middle:])

    def _remember_keys(self, batch: Sequence[Booking]) -> None:
        """Of entries that have gone where the store's reads don't find them yet."""
        for waiting in batch:
            if waiting.entry.idempotency_key is not None:
                name = waiting.entry.organisation, waiting.entry.idempotency_key
                self._queued_keys[name] = waiting.entry.completion_id
                self._queued_keys.move_to_end(name)
        while len(self._queued_keys) > MAX_QUEUED_KEYS:
            self._queued_keys.popitem(last=False)

    def _committed(self, batch: Sequence[Booking]) -> None:
        for waiting in batch:
            if not waiting.committed.done():
                waiting.committed.set_result(None)
        self.forget(*(waiting.entry for waiting in batch))

    async def _without_corrections(self, batch: Sequence[Booking]) -> Sequence[Booking]:
        """Somebody's words are in them: they wait here."""
        corrections = [waiting for waiting in batch if waiting.entry.corrects is not None]
        if not corrections:
            return batch
        await self._spool(corrections)
        return [waiting for waiting in batch if waiting.entry.corrects is None]

    async def _spool(self, batch: Sequence[Booking]) -> None:
        """Keep entries that nothing took: here for the next try, on the disk for the next start."""
        self._owed.extend(batch)
        fresh = [waiting for waiting in batch if not waiting.owed]
        if not fresh:
            return
        for waiting in fresh:
            waiting.owed = True
        began = time.perf_counter()
        try:
            await self._inflight.keep([waiting.entry for waiting in fresh])
        except (StoreUnavailableError, ValueError) as error:  # the notes from their beginning still stand
            for waiting in fresh:
                _fail(waiting.committed, _unavailable("the usage ledger can't be written at the moment"), error)
        else:
            for waiting in fresh:
                if not waiting.committed.done():
                    waiting.committed.set_result(None)
            self._observer.committed(SPOOL, len(fresh), time.perf_counter() - began)

    def _note(self, waiting: Booking) -> None:
        with suppress(StoreUnavailableError, ValueError):  # the note from its beginning still stands
            self._inflight.begin(waiting.entry)

    def _reject(self, waiting: Booking, error: Exception) -> None:
        entry = waiting.entry
        log.error("entry can't be stored", completion_id=entry.completion_id, attempt=entry.attempt, reason=str(error))
        _fail(waiting.committed, error, None)

    def _tell_availability(self) -> None:
        """Unavailable as long as anything is owed: what is spooled must not grow with calls that are yet to come."""
        reachable = [sink.reachable for sink in self._sinks]
        (self._missing.clear if all(reachable) else self._missing.set)()
        available = any(reachable) and not any(waiting.entry.corrects is None for waiting in self._owed)
        if available is not self.available:
            self.available = available
            log.warning("ledger available again" if available else "ledger unavailable", owed=len(self._owed))


@asynccontextmanager
async def open_ledger(
    store: LedgerStore,
    inflight: InflightLog,
    queue: JobQueue | None = None,
    observer: Observer = UNOBSERVED,
    tracer: Tracer = UNTRACED,
) -> AsyncIterator[Ledger]:
    """A ledger and its tasks. Leaving the context commits what waits."""
    ledger = Ledger(store, inflight, queue, observer, tracer)
    writer = asyncio.create_task(ledger.write(), name="ledger-writer")
    async with beside("ledger-mender", ledger.mend):
        try:
            yield ledger
        finally:
            ledger.close()
            await writer


def _sinks(store: LedgerStore, queue: JobQueue | None) -> Sequence[Sink]:
    """In the order of preference."""
    if queue is None:
        return (Sink(STORE, "ledger's store", store.append),)
    waiting = QueuedEntries(queue)
    return (
        Sink(STORE, "ledger's store", store.append, patience_s=PATIENCE_S),
        Sink(QUEUE, "queue for the ledger", waiting.append, takes_corrections=False),
    )


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
