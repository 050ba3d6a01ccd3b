"""How the providers do: their circuits, and the error rate and latency of the last few minutes, seen by this process.

One task looks once a second, while anyone listens, and tells every listener of what has changed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median_low

from .beside import end
from .errors import ServiceUnavailableError
from .key_pool import KeyState
from .routing import Circuits, CircuitState, Vendor

WINDOW_S = 300.0
MAX_ATTEMPTS = 500
"""Of the window, for each provider."""
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """`circuit` is the worst of the provider's. `attempts` counts those of the window, `error_rate` is 0 to 1, None
    where there are none; `latency_ms` is the median of those that were answered, None where none was. `keys` are those
    that it is called by, by their ids."""

    name: str
    configured: bool
    circuit: CircuitState
    attempts: int
    error_rate: float | None
    latency_ms: int | None
    keys: tuple[tuple[str, KeyState], ...] = ()


class Health:
    """`known` are the providers that there are, `configured` those that can be called here: they are all that is ever
    watched. `clock` is monotonic, in seconds."""

    def __init__(
        self, known: Iterable[str], configured: Mapping[str, Vendor], circuits: Circuits, clock: Callable[[], float]
    ) -> None:
        self._names = tuple(sorted({*known, *configured}))
        self._vendors = configured
        self._circuits = circuits
        self._clock = clock
        self._seen: dict[str, deque[tuple[float, int, bool]]] = {
            name: deque(maxlen=MAX_ATTEMPTS) for name in configured
        }
        self._told: dict[str, ProviderHealth] = {}
        self._listeners: set[_Listener] = set()
        self._watcher: asyncio.Task[None] | None = None

    def attempted(self, provider: str, latency_ms: int, *, failed: bool) -> None:
        """One attempt ended in a way that speaks of the provider's health: answered, or by a fault of its own."""
        self._seen[provider].append((self._clock(), latency_ms, failed))

    def providers(self) -> list[ProviderHealth]:
        """All of them, by name."""
        circuits, since = self._circuits.worst(), self._clock() - WINDOW_S
        return [self._provider(name, circuits.get(name, CircuitState.CLOSED), since) for name in self._names]

    async def changes(self) -> AsyncGenerator[ProviderHealth, None]:
        """Every provider as it is now, then each that has changed. A slow listener misses states, never the last.
        Raises ServiceUnavailableError at the process's end."""
        self._look()
        listener = _Listener(self._told)
        self._listeners.add(listener)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch())
        try:
            while True:
                yield await listener.next()
        finally:
            self._listeners.discard(listener)
            await self._rest()

    def close(self) -> None:
        """Those who still listen are told to ask again."""
        for listener in self._listeners:
            listener.end()

    def _provider(self, name: str, circuit: CircuitState, since: float) -> ProviderHealth:
        recent = [(ms, failed) for at, ms, failed in self._seen.get(name, ()) if at > since]
        answered = [ms for ms, failed in recent if not failed]
        pool = self._vendors[name].keys if name in self._vendors else None
        return ProviderHealth(
            name=name,
            configured=name in self._seen,
            circuit=circuit,
            attempts=len(recent),
            error_rate=(len(recent) - len(answered)) / len(recent) if recent else None,
            latency_ms=median_low(answered) if answered else None,
            keys=() if pool is None else tuple((key.id, pool.state(key)) for key in pool.keys),
        )

    async def _watch(self) -> None:
        """Its task is owned by the listeners: the first one starts it, the last one ends it."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._look()

    def _look(self) -> None:
        changed = {each.name: each for each in self.providers() if each != self._told.get(each.name)}
        self._told.update(changed)
        for listener in self._listeners:
            listener.tell(changed)

    async def _rest(self) -> None:
        if self._listeners or self._watcher is None:
            return
        watcher, self._watcher = self._watcher, None
        await end(watcher)


class _Listener:
    """What one listener has not read yet: at most the last state of each provider."""

    def __init__(self, states: Mapping[str, ProviderHealth]) -> None:
        self._unread: dict[str, ProviderHealth] = {}
        self._something = asyncio.Event()
        self._ended = False
        self.tell(states)

    def tell(self, states: Mapping[str, ProviderHealth]) -> None:
        self._unread.update(states)
        if self._unread:
            self._something.set()

    def end(self) -> None:
        self._ended = True
        self._something.set()

    async def next(self) -> ProviderHealth:
        await self._something.wait()
        if self._ended:
            raise ServiceUnavailableError("the server is shutting down: ask again")
        name = next(iter(self._unread))
        state = self._unread.pop(name)
        if not self._unread:
            self._something.clear()
        return state
