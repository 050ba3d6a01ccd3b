"""Configs at hand for completions: no read for each call, and none while the store is away for a moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from persistence.config_records import ConfigVersion
from persistence.ports import ConfigStore, StoreUnavailableError

FRESH_S = 5.0  # for so long another process's write may go unseen
USABLE_S = 300.0  # while the store can't be read
MAX_CACHED = 512  # of either kind

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ConfigHead:
    """What a completion asks of a config before it gets to a version."""

    id: str
    published: int | None
    archived: bool


class ConfigCache:
    """The heads by slug, refreshed after FRESH_S, and the versions, which never change. This process's writes tell
    their slug to `forget`. `clock` is monotonic, in seconds."""

    def __init__(self, store: ConfigStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._heads: OrderedDict[tuple[str, str], tuple[ConfigHead, float]] = OrderedDict()
        self._versions: OrderedDict[tuple[str, str, int], ConfigVersion] = OrderedDict()
        self._writes = 0

    async def head(self, organisation: str, slug: str) -> ConfigHead | None:
        """Raises StoreUnavailableError where nothing usable is at hand."""
        key = organisation, slug
        known, at = self._heads.get(key, (None, 0.0))
        age = self._clock() - at
        if known is not None and age < FRESH_S:
            self._heads.move_to_end(key)
            return known
        writes = self._writes
        try:
            found = await self._store.by_slug(organisation, slug)
        except StoreUnavailableError:
            if known is not None and age < USABLE_S:
                return known
            raise
        if found is None:
            return None
        head = ConfigHead(found.id, found.published, found.archived_at is not None)
        if writes == self._writes:  # else what was read may be older than a write that ended meanwhile
            _keep(self._heads, key, (head, self._clock()))
        return head

    async def version(self, organisation: str, config_id: str, number: int) -> ConfigVersion | None:
        """Raises StoreUnavailableError."""
        key = organisation, config_id, number
        known = self._versions.get(key)
        if known is not None:
            self._versions.move_to_end(key)
            return known
        found = await self._store.version(organisation, config_id, number)
        if found is not None:
            _keep(self._versions, key, found)
        return found

    def forget(self, organisation: str, slug: str) -> None:
        """To be called after each write, whatever became of it."""
        self._writes += 1
        self._heads.pop((organisation, slug), None)


def _keep(cached: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    cached[key] = value
    cached.move_to_end(key)
    if len(cached) > MAX_CACHED:
        cached.popitem(last=False)
