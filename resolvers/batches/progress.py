"""A batch as it goes on, for whoever watches: one poller for each batch, whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import datetime

from persistence.batch_records import ENDED, Batch
from persistence.ports import BatchStore, StoreUnavailableError

from ..beside import end
from ..errors import NotFoundError, RateLimitedError, ServiceUnavailableError, UnauthenticatedError
from ..principal import Principal
from .shares import Name

EVERY_S = 1.0
HEARTBEAT_S = 15.0
MAX_WATCHED = 1_000
"""Batches that are polled at once, of all organisations together."""
MAX_WATCHED_OF_ONE = 50
"""The same, of one organisation."""


class BatchProgress:
    """`now` is aware UTC."""

    def __init__(self, store: BatchStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._pollers: dict[Name, _Poller] = {}

    async def of(self, principal: Principal, batch_id: str) -> AsyncGenerator[Batch, None]:
        """As it is now, then whenever that has changed, and after HEARTBEAT_S without a change; it ends when the batch
        has. A slow listener misses states, never the newest. While the store can't be read there are none.

        Raises NotFoundError; RateLimitedError and ServiceUnavailableError for too many batches; ServiceUnavailableError
        at the process's end; UnauthenticatedError in place of the first state after the principal has expired.
        """
        poller = self._poller((principal.organisation, batch_id))
        seen = 0
        poller.listeners += 1
        try:
            while True:
                seen, batch = await poller.later_than(seen)
                if principal.expires_at <= self._now().timestamp():
                    raise UnauthenticatedError("the token has expired: subscribe again with a new one")
                yield batch
                if batch.state in ENDED:
                    return
        finally:
            poller.listeners -= 1
            await self._rest(poller)

    async def close(self) -> None:
        """Those who still listen are told to ask again."""
        pollers = list(self._pollers.values())
        for poller in pollers:
            poller.end(ServiceUnavailableError("the server is shutting down: ask again"))
        await end(*(poller.task for poller in pollers))

    def _poller(self, name: Name) -> _Poller:
        poller = self._pollers.get(name)
        if poller is not None and poller.ended is None:
            return poller
        if poller is None:
            self._check_room(name[0])
        poller = self._pollers[name] = _Poller(self._store, name)
        return poller

    def _check_room(self, organisation: str) -> None:
        if sum(name[0] == organisation for name in self._pollers) >= MAX_WATCHED_OF_ONE:
            raise RateLimitedError(f"at most {MAX_WATCHED_OF_ONE} batches of an organisation are watched at once")
        if len(self._pollers) >= MAX_WATCHED:
            raise ServiceUnavailableError("this server can't watch more batches at the moment")

    async def _rest(self, poller: _Poller) -> None:
        if poller.listeners:
            return
        if self._pollers.get(poller.name) is poller:
            del self._pollers[poller.name]
        await end(poller.task)


class _Poller:
    """Looks, and keeps what it saw last for everyone who listens: nothing queues."""

    def __init__(self, store: BatchStore, name: Name) -> None:
        self.name = name
        self.listeners = 0
        self.ended: Exception | None = None
        self._store = store
        self._newest: Batch | None = None
        self._number = 0
        self._told_at = 0.0
        self._told = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="batch-progress")

    async def _run(self) -> None:
        while True:
            try:
                batch = await self._store.by_id(*self.name)
                if batch is None:
                    self.end(NotFoundError("no such batch"))
                    return
                self._saw(batch)
                if batch.state in ENDED:
                    return
            except StoreUnavailableError:
                pass  # who asks anything else is told so
            except Exception as error:  # noqa: BLE001  # whatever it is, each listener must hear of it
                self.end(error)
                return
            await asyncio.sleep(EVERY_S)

    async def later_than(self, number: int) -> tuple[int, Batch]:
        """The newest state and its number, which is another than `number`. Raises what ended the poller."""
        while True:
            if self.ended is not None:
                raise self.ended
            if self._newest is not None and self._number != number:
                return self._number, self._newest
            await self._told.wait()

    def end(self, why: Exception) -> None:
        self.ended = why
        self._told.set()

    def _saw(self, batch: Batch) -> None:
        now = asyncio.get_running_loop().time()
        if batch == self._newest and now - self._told_at < HEARTBEAT_S:
            return
        self._newest = batch
        self._number += 1
        self._told_at = now
        self._told.set()
        self._told = asyncio.Event()
