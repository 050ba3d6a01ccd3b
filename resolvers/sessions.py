"""Connections that stay open, by the API key that they were opened with: they end when it does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime

import structlog

from persistence.ports import ApiKeyStore, StoreUnavailableError

from .beside import beside
from .principal import Principal

RETRY_S = 1.0
END_TIMEOUT_S = 5.0

End = Callable[[], Awaitable[None]]

log = structlog.get_logger("keys")

_Name = tuple[str, str]  # an organisation, and its key's id


class Sessions:
    """Opened by `open_sessions`. `now` is aware UTC."""

    def __init__(self, store: ApiKeyStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._open: defaultdict[_Name, dict[End, Callable[[], None] | None]] = defaultdict(dict)
        self._suspects: set[_Name] = set()
        self._wake = asyncio.Event()

    @contextmanager
    def session(self, principal: Principal, end: End, changed: Callable[[], None] | None = None) -> Iterator[None]:
        """`end` is called, within END_TIMEOUT_S, when the key that the principal came with no longer opens; `changed`
        when it opens still, and may have another end."""
        if principal.key_id is None:
            yield
            return
        name = principal.organisation, principal.key_id
        self._open[name][end] = changed
        try:
            yield
        finally:
            del self._open[name][end]
            if not self._open[name]:
                del self._open[name]

    def suspect(self, organisation: str, key_id: str) -> None:
        """The key has been changed, or may have been."""
        if (organisation, key_id) in self._open:
            self._suspects.add((organisation, key_id))
            self._wake.set()

    def suspect_all(self) -> None:
        self._suspects.update(self._open)
        self._wake.set()

    async def watch(self) -> None:
        """Looks at what is suspected, again and again while the store is away."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._suspects:
                name = self._suspects.pop()
                try:
                    await self._look(name)
                except StoreUnavailableError as error:
                    self._suspects.add(name)
                    log.warning("whether keys still open is not known", reason=str(error))
                    await asyncio.sleep(RETRY_S)

    async def _look(self, name: _Name) -> None:
        key = await self._store.by_id(*name)
        found = self._open.get(name, {})
        if key is not None and key.opens(self._now()):
            for changed in found.values():
                if changed is not None:
                    changed()
            return
        ends = list(found)
        log.info("connections of a key end with it", organisation=name[0], key=name[1], connections=len(ends))
        await asyncio.gather(*(_ended(end) for end in ends))


@asynccontextmanager
async def open_sessions(store: ApiKeyStore, now: Callable[[], datetime]) -> AsyncIterator[Sessions]:
    sessions = Sessions(store, now)
    async with beside("sessions", sessions.watch):
        yield sessions


async def _ended(end: End) -> None:
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await end()
    except Exception as error:  # noqa: BLE001  # a connection that is going anyway must not keep the others open
        log.warning("a connection could not be ended", reason=type(error).__name__)
