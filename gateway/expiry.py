"""Connections that stay open: they end when what opened them expires or is revoked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

from resolvers.errors import ServiceUnavailableError, UnauthenticatedError
from resolvers.principal import Principal
from resolvers.sessions import End, Sessions

LONGEST_WAIT_S = 60.0  # the wall clock may be set meanwhile
RETRY_S = 1.0

Again = Callable[[], Awaitable[Principal]]
"""Authenticates the connection's token or key once more. Raises as `Authenticator.from_header`."""

log = structlog.get_logger("keys")


@asynccontextmanager
async def open_while_valid(
    sessions: Sessions, principal: Principal, again: Again, *, revoked: End, expired: End
) -> AsyncIterator[None]:
    """`revoked` is awaited when the principal's key no longer opens, `expired` at `expires_at`, or at what that has
    become since: a key may be given another end, or be replaced."""
    changed = asyncio.Event()
    with sessions.session(principal, revoked, changed.set):
        watch = asyncio.create_task(_watched(principal, again, expired, changed))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])


async def _watched(principal: Principal, again: Again, expired: End, changed: asyncio.Event) -> None:
    try:
        await _until_expired(principal, again, changed)
    except Exception:  # a defect of ours must not keep a connection open for ever
        log.exception("a connection ends, as its expiry can't be watched")
    await expired()


async def _until_expired(principal: Principal, again: Again, changed: asyncio.Event) -> None:
    while True:
        left = principal.expires_at - time.time()
        try:
            async with asyncio.timeout(min(left, LONGEST_WAIT_S) if left > 0 else RETRY_S):
                await changed.wait()
        except TimeoutError:
            if principal.expires_at > time.time():
                continue
        changed.clear()
        try:
            principal = await again()
        except ServiceUnavailableError:
            await asyncio.sleep(RETRY_S)
            changed.set()
        except UnauthenticatedError:
            return


class Ending:
    """Ends the stream of the task that made it, while the client is there to be told why."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a request is served by one
        self._task = task
        self._cancelling = task.cancelling()
        self.reason: str | None = None

    def because(self, reason: str) -> End:
        async def end() -> None:
            if self.reason is None:
                self.reason = reason
                self._task.cancel()

        return end

    @contextmanager
    def caught(self) -> Iterator[None]:
        """What runs inside may be ended; any other cancellation goes on."""
        try:
            yield
        except asyncio.CancelledError:
            if self.reason is None or self._task.uncancel() > self._cancelling:
                raise
