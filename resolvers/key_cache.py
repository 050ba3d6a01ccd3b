"""API keys at hand for whoever presents them: no read for each call, and none to wait for while the store is away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from persistence.key_records import PresentedKey
from persistence.ports import ApiKeyStore, StoreUnavailableError

from .cache_counts import CacheCounts

FRESH_S = 5.0  # for so long another process's write may go unseen, where nobody tells of it
USABLE_S = 300.0  # while the store can't be read
TRIAL_INTERVAL_S = 5.0  # between two reads that fail
UNKNOWN_S = 1.0  # what was no key a moment ago is none now
MAX_KEYS = 10_000
MAX_READS = 32
"""Reads at once, for keys that nobody has presented before: whoever makes them up waits for his own like."""


Name = str | tuple[str, str]
"""A digest; or an organisation, and its key's id."""


@dataclass(frozen=True, slots=True)
class _Known:
    """At `stale_at` it is read anew. Monotonic seconds."""

    found: PresentedKey
    read_at: float
    stale_at: float


class KeyCache:
    """By digest, and by id for the tokens that a key has minted. What is no key is remembered apart, so that whoever
    makes keys up drives no real one out. `clock` is monotonic, in seconds."""

    def __init__(self, store: ApiKeyStore, clock: Callable[[], float]) -> None:
        self.counts = CacheCounts()
        self._store = store
        self._clock = clock
        self._known: OrderedDict[Name, _Known] = OrderedDict()
        self._unknown: OrderedDict[Name, float] = OrderedDict()  # until when
        self._reads = asyncio.Semaphore(MAX_READS)
        self._writes = 0
        self.changed: Callable[[str, str], None] | None = None
        """Is told of each key that was written."""
        self.anything_changed: Callable[[], None] | None = None

    def at_hand(self, name: Name) -> PresentedKey | None:
        """Only what is fresh."""
        known = self._known.get(name)
        if known is None or self._clock() >= known.stale_at:
            return None
        self._known.move_to_end(name)
        self.counts.hits += 1
        return known.found

    async def find(self, name: Name) -> PresentedKey | None:
        """One caller reads; the others have what was known meanwhile. Raises StoreUnavailableError where nothing usable
        is at hand."""
        now = self._clock()
        if now < self._unknown.get(name, now):
            self.counts.hits += 1
            return None
        known = self._known.get(name)
        if known is not None and now < known.stale_at:
            self.counts.hits += 1
            return known.found
        self.counts.misses += 1
        if known is None:
            return await self._read(name)
        usable = now < known.read_at + USABLE_S
        if usable:
            self._keep(name, replace(known, stale_at=min(now + TRIAL_INTERVAL_S, known.read_at + USABLE_S)))
        try:
            return await self._read(name)
        except StoreUnavailableError:
            if not usable:
                raise
            return known.found
        except asyncio.CancelledError:
            self.outdate(known.found.key.organisation, known.found.key.id)  # the next caller reads
            raise

    def soonest_expiry(self, now: datetime) -> datetime | None:
        """When the first of the keys ends that are known here; None where none of them has an end that is to come."""
        ends = (end for known in self._known.values() if (end := _end(known.found)) is not None and end > now)
        return min(ends, default=None)

    def outdate(self, organisation: str, key_id: str) -> None:
        """It has been written, by whatever process: what is known serves only until it is read, or while the store is
        away."""
        self._outdate(lambda known: (known.found.key.organisation, known.found.key.id) == (organisation, key_id))
        if self.changed is not None:
            self.changed(organisation, key_id)

    def outdate_all(self) -> None:
        self._outdate(lambda _: True)
        if self.anything_changed is not None:
            self.anything_changed()

    def _outdate(self, concerns: Callable[[_Known], bool]) -> None:
        self._writes += 1
        now = self._clock()
        for name, known in self._known.items():
            if concerns(known):
                self._known[name] = replace(known, stale_at=now)

    async def _read(self, name: Name) -> PresentedKey | None:
        async with self._reads:
            writes = self._writes
            found = await self._stored(name)
        now = self._clock()
        if found is None:
            self._known.pop(name, None)
            self._unknown[name] = now + UNKNOWN_S
            if len(self._unknown) > MAX_KEYS:
                self._unknown.popitem(last=False)
        else:  # what was read may be older than a write that ended meanwhile
            self._keep(name, _Known(found, now, now + FRESH_S if writes == self._writes else now))
        return found

    async def _stored(self, name: Name) -> PresentedKey | None:
        if isinstance(name, str):
            return await self._store.by_digest(name)
        key = await self._store.by_id(*name)
        return None if key is None else PresentedKey(key, until=None)

    def _keep(self, name: Name, known: _Known) -> None:
        self._known[name] = known
        self._known.move_to_end(name)
        if len(self._known) > MAX_KEYS:
            self._known.popitem(last=False)


def _end(found: PresentedKey) -> datetime | None:
    """Of a key that is in use."""
    if found.key.revoked_at is not None:
        return None
    return min((each for each in (found.key.expires_at, found.until) if each is not None), default=None)
