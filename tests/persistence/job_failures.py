"""Failures of jobs for tests: counted in memory, in a store that may be away."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime

from persistence.ports import StoreUnavailableError


class MemoryJobFailures:
    """Implements `persistence.ports.JobFailures`. `down` fails every call, `stuck` answers none."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.down = False
        self.stuck = False

    async def add(self, name: str, *, known: int, at: datetime) -> int:
        if self.stuck:
            await asyncio.Event().wait()
        if self.down:
            raise StoreUnavailableError("down")
        assert at.microsecond % 1000 == 0
        self.counts[name] = max(self.counts[name], known) + 1
        return self.counts[name]
