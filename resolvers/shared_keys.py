"""Idempotency keys that all processes of a deployment know, while their completions run and for a while after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from persistence.ports import SharedValues, StoreUnavailableError

REMEMBERED_S = 3600.0
"""Longer than any completion runs; from its end on the ledger knows the key, and where that is away, this does."""

CLAIM_TIMEOUT_S = 1.0
"""A completion waits for it."""
AWAY_S = 1.0
"""For how long nobody is kept waiting after that was in vain."""


class SharedKeys:
    """Opened by `open_shared_keys`."""

    def __init__(self, values: SharedValues) -> None:
        self._values = values
        self._releases: set[asyncio.Task[None]] = set()
        self._away_until = 0.0

    async def claim(self, organisation: str, key: str, completion_id: str) -> str | None:
        """The completion that has it, or None where it is this one now. Raises StoreUnavailableError."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._away_until:
            raise StoreUnavailableError("keys: no answer a moment ago")
        try:
            async with asyncio.timeout(CLAIM_TIMEOUT_S):
                return await self._values.claim(organisation, _name(key), completion_id, seconds=REMEMBERED_S)
        except TimeoutError:
            self._away_until = loop.time() + AWAY_S
            raise StoreUnavailableError(f"keys: no answer within {CLAIM_TIMEOUT_S:g} s") from None

    def release(self, organisation: str, key: str, completion_id: str) -> None:
        """Let go of a key that nothing was sent for: soon, and not awaited."""
        task = asyncio.create_task(self._release(organisation, key, completion_id), name="release-key")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, organisation: str, key: str, completion_id: str) -> None:
        with suppress(StoreUnavailableError):  # it is forgotten in time
            await self._values.release(organisation, _name(key), completion_id)

    async def close(self) -> None:
        if self._releases:
            await asyncio.wait(self._releases)


@asynccontextmanager
async def open_shared_keys(values: SharedValues) -> AsyncIterator[SharedKeys]:
    keys = SharedKeys(values)
    try:
        yield keys
    finally:
        await keys.close()


def _name(key: str) -> str:
    return f"idempotency:{key}"
