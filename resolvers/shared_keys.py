"""Idempotency keys that all processes of a deployment know, while their completions run and for a while after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from persistence.ports import SharedValues, StoreUnavailableError

REMEMBERED_S = 3600.0
"""Longer than any completion runs; from its end on the ledger knows the key, and where that is away, this does."""


class SharedKeys:
    """Opened by `open_shared_keys`."""

    def __init__(self, values: SharedValues) -> None:
        self._values = values
        self._releases: set[asyncio.Task[None]] = set()

    async def claim(self, organisation: str, key: str, completion_id: str) -> str | None:
        """The completion that has it, or None where it is this one now. Raises StoreUnavailableError."""
        return await self._values.claim(organisation, _name(key), completion_id, seconds=REMEMBERED_S)

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
