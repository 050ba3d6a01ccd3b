"""Price rules at hand for completions: none of them waits for a read in the usual case."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from weakref import WeakValueDictionary

from persistence.ports import PriceStore, StoreUnavailableError

from .cache_counts import CacheCounts
from .errors import ServiceUnavailableError
from .price_book import NO_RULES, PriceBook

FRESH_S = 60.0  # for so long another process's write may go unseen
USABLE_S = 300.0  # while the store can't be read
TRIAL_INTERVAL_S = 5.0  # between two reads of an organisation's rules that take long, or fail
MAX_CACHED = 4096  # organisations

LOOK_BACK = timedelta(hours=1)  # longer than any completion lasts: its prices are those of its beginning

Written = TypeVar("Written")


@dataclass(frozen=True, slots=True)
class _Known:
    """`book` is None where the rules could not be read; at `stale_at` they are read anew. Monotonic seconds."""

    book: PriceBook | None
    read_at: float
    stale_at: float


class PriceCache:
    """Each organisation's book, read anew after FRESH_S. All writes of this process go through `write`. `clock` is
    monotonic, in seconds; `now` is aware UTC."""

    def __init__(self, store: PriceStore, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self.counts = CacheCounts()
        self._store = store
        self._clock = clock
        self._now = now
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._reading: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._writes = 0

    def at_hand(self, organisation: str) -> PriceBook | None:
        """The book, where it needs no read; else `book` reads it."""
        known = self._known.get(organisation)
        if known is None or self._clock() >= known.stale_at:
            return None
        self._known.move_to_end(organisation)
        self.counts.hits += 1
        return known.book

    async def book(self, organisation: str) -> PriceBook:
        """One caller reads; the others of the organisation have the last book meanwhile, or wait where there is none.
        While the store can't be read, what was read in the last USABLE_S serves; raises ServiceUnavailableError where
        there is no such."""
        async with self._lock(organisation):
            known = self._known.get(organisation)
            if known is None or self._clock() >= known.stale_at:
                self.counts.misses += 1
                known = await self._read(organisation, known)
        if known.book is None:
            error = ServiceUnavailableError("the price rules can't be read at the moment")
            error.retry_after_ms = round(TRIAL_INTERVAL_S * 1000)
            raise error
        return known.book

    async def write(self, organisation: str, work: Callable[[], Awaitable[Written]]) -> Written:
        """Carries out a write of the organisation's rules, also where its caller is cancelled meanwhile. Who asks for
        the book while it goes on waits, and has what came of it."""
        writing = asyncio.ensure_future(self._write(organisation, work))
        try:
            return await asyncio.shield(writing)
        finally:
            await asyncio.wait([writing])

    def outdate(self, organisation: str) -> None:
        """Another process has written: what is known serves from now on only while the store can't be read."""
        self._writes += 1
        known = self._known.get(organisation)
        if known is not None:
            self._known[organisation] = replace(known, stale_at=self._clock())

    def outdate_all(self) -> None:
        """The same for every organisation."""
        for organisation in list(self._known):
            self.outdate(organisation)
        self._writes += 1

    async def _write(self, organisation: str, work: Callable[[], Awaitable[Written]]) -> Written:
        async with self._lock(organisation):
            known = self._known.pop(organisation, None)
            try:
                return await work()
            except ServiceUnavailableError:  # kept or not: only a read can tell
                if known is not None:
                    self._keep(organisation, replace(known, stale_at=self._clock()))
                raise

    def _lock(self, organisation: str) -> asyncio.Lock:
        lock = self._reading.get(organisation)
        if lock is None:
            lock = self._reading[organisation] = asyncio.Lock()
        return lock

    async def _read(self, organisation: str, known: _Known | None) -> _Known:
        writes = self._writes
        if (meanwhile := self._outlasting(known)).book is not None:
            self._keep(organisation, meanwhile)
        try:
            rules = await self._store.unended(organisation, since=self._now() - LOOK_BACK)
        except StoreUnavailableError:
            found = self._outlasting(known)
        else:
            at = self._clock()
            # What was read may be older than a write that was told of meanwhile.
            stale_at = at + FRESH_S if writes == self._writes else at
            found = _Known(PriceBook(rules) if rules else NO_RULES, at, stale_at)
        self._keep(organisation, found)
        return found

    def _keep(self, organisation: str, known: _Known) -> None:
        self._known[organisation] = known
        self._known.move_to_end(organisation)
        if len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)

    def _outlasting(self, known: _Known | None) -> _Known:
        """What serves until the next trial."""
        at = self._clock()
        if known is None or known.book is None or at >= known.read_at + USABLE_S:
            return _Known(None, at, at + TRIAL_INTERVAL_S)
        return _Known(known.book, known.read_at, min(at + TRIAL_INTERVAL_S, known.read_at + USABLE_S))
