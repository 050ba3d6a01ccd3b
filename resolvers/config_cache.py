"""Configs at hand for completions: no read for each call, and none to wait for while the store is away."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from persistence.config_records import ConfigVersion
from persistence.ports import ConfigStore, StoreUnavailableError

from .cache_counts import CacheCounts

FRESH_S = 5.0  # for so long another process's write may go unseen, where nobody tells of it
USABLE_S = 300.0  # while the store can't be read
TRIAL_INTERVAL_S = 5.0  # between two reads of a head that take long, or fail
MAX_HEADS = 10_000
MAX_VERSION_BYTES = 4 * 1024 * 1024  # as JSON; in memory it may take twenty times as much

_HeadKey = tuple[str, str]
_VersionKey = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class ConfigHead:
    """What a completion asks of a config before it gets to a version."""

    id: str
    published: int | None
    archived: bool


@dataclass(frozen=True, slots=True)
class _Known:
    """At `stale_at` it is read anew. Monotonic seconds."""

    head: ConfigHead
    read_at: float
    stale_at: float


class ConfigCache:
    """The heads by slug, refreshed after FRESH_S, and the versions, which never change. This process's writes tell
    their slug to `forget`, others' are told to `outdate`. `clock` is monotonic, in seconds."""

    def __init__(self, store: ConfigStore, clock: Callable[[], float]) -> None:
        self.counts = CacheCounts()
        self._store = store
        self._clock = clock
        self._heads: OrderedDict[_HeadKey, _Known] = OrderedDict()
        self._versions: OrderedDict[_VersionKey, ConfigVersion] = OrderedDict()
        self._version_bytes = 0
        self._writes = 0
        self._others_writes = 0

    async def head(self, organisation: str, slug: str) -> ConfigHead | None:
        """One caller reads; the others have what was known meanwhile. Raises StoreUnavailableError where nothing usable
        is at hand."""
        key = organisation, slug
        known, now = self._heads.get(key), self._clock()
        if known is not None and now < known.stale_at:
            self._heads.move_to_end(key)
            self.counts.hits += 1
            return known.head
        self.counts.misses += 1
        if known is not None and self._is_usable(known):
            self._keep(key, replace(known, stale_at=min(now + TRIAL_INTERVAL_S, known.read_at + USABLE_S)))
        try:
            return await self._read(key)
        except StoreUnavailableError:
            if known is None or not self._is_usable(known):
                raise
            return known.head
        except asyncio.CancelledError:
            self.outdate(organisation, slug)  # the next caller reads
            raise

    async def version(self, organisation: str, config_id: str, number: int) -> ConfigVersion | None:
        """Raises StoreUnavailableError."""
        key = organisation, config_id, number
        known = self._versions.get(key)
        if known is not None:
            self._versions.move_to_end(key)
            return known
        found = await self._store.version(organisation, config_id, number)
        if found is not None:
            self._keep_version(key, found)
        return found

    def forget(self, organisation: str, slug: str) -> None:
        """To be called after each write of this process, whatever became of it."""
        self._writes += 1
        self._heads.pop((organisation, slug), None)

    def outdate(self, organisation: str, slug: str) -> None:
        """Another process has written: what is known serves from now on only while the store can't be read."""
        self._others_writes += 1
        known = self._heads.get((organisation, slug))
        if known is not None:
            self._heads[organisation, slug] = replace(known, stale_at=self._clock())

    def outdate_all(self) -> None:
        """The same for every config."""
        for key in list(self._heads):
            self.outdate(*key)
        self._others_writes += 1

    async def _read(self, key: _HeadKey) -> ConfigHead | None:
        writes, others_writes = self._writes, self._others_writes
        found = await self._store.by_slug(*key)
        if found is None:
            self._heads.pop(key, None)
            return None
        head = ConfigHead(found.id, found.published, found.archived_at is not None)
        if writes == self._writes:  # else what was read may be older than a write that ended meanwhile
            now = self._clock()
            stale_at = now + FRESH_S if others_writes == self._others_writes else now
            self._keep(key, _Known(head, now, stale_at))
        return head

    def _is_usable(self, known: _Known) -> bool:
        return self._clock() < known.read_at + USABLE_S

    def _keep(self, key: _HeadKey, known: _Known) -> None:
        self._heads[key] = known
        self._heads.move_to_end(key)
        if len(self._heads) > MAX_HEADS:
            self._heads.popitem(last=False)

    def _keep_version(self, key: _VersionKey, version: ConfigVersion) -> None:
        if key not in self._versions:  # another caller may have read it meanwhile
            self._version_bytes += len(version.text)
        self._versions[key] = version
        while self._version_bytes > MAX_VERSION_BYTES:
            _, oldest = self._versions.popitem(last=False)
            self._version_bytes -= len(oldest.text)
