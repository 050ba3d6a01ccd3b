"""What `/readyz` says: whether this process should be sent calls, and what it is without."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

LOOK_TIMEOUT_S = 2.5
"""Who asks `/readyz` has little patience, and must hear of what is away."""

Look = Callable[[], Awaitable[str | None]]
"""What keeps a server from its work, in a line; None where nothing does."""


@dataclass(slots=True)
class Dependency:
    """A server behind this process. `spared`: completions go on while it is away, so that an orchestrator must not take
    the process out of service for it. It must have answered once, at the start or since: a release that can't reach it
    is not ready."""

    name: str
    look: Look
    spared: bool
    answered: bool = False

    async def trouble(self) -> tuple[str | None, bool]:
        """In a line, if any; and whether the process can go on with it."""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                said = await self.look()
        except TimeoutError:
            said = f"no answer within {LOOK_TIMEOUT_S:g} s"
        self.answered = self.answered or said is None
        return said and f"{self.name} ({said})", self.spared and self.answered


@dataclass(frozen=True, slots=True)
class Readiness:
    """`missing`: without it no completion is answered. `away`: completions go on without it, other calls don't."""

    missing: Sequence[str]
    away: Sequence[str]

    def __str__(self) -> str:
        if self.missing:
            return f"missing: {', '.join((*self.missing, *self.away))}"
        return f"ready, without {', '.join(self.away)}" if self.away else "ready"


async def readiness(own: Sequence[str], dependencies: Sequence[Dependency]) -> Readiness:
    """`own`: what the process itself is missing. All are asked at once."""
    looks = await asyncio.gather(*(dependency.trouble() for dependency in dependencies))
    missing = [trouble for trouble, goes_on in looks if trouble and not goes_on]
    return Readiness([*own, *missing], [trouble for trouble, goes_on in looks if trouble and goes_on])
