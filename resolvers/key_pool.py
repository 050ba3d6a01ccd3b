"""A provider's keys: which one the next call goes by. Shared by every completion of this process."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from providers.errors import ProviderAuthError, ProviderError, ProviderRateLimitedError
from providers.types import Credentials

LIMITED_S = 1.0
"""How long a key rests that is over its limit, where the vendor does not say."""
REFUSED_S = 300.0
"""How long a key rests that was refused, or that nobody has paid for: also the longest that a vendor may ask for."""


class KeyState(StrEnum):
    READY = "ready"
    LIMITED = "limited"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """`id` tells it from the provider's others, to people and to circuits, and gives nothing of it away. Of two keys
    that are ready, one with twice the `weight` gets twice the calls."""

    id: str
    credentials: Credentials
    weight: int = 1


@dataclass(slots=True)
class _Rest:
    until: float
    state: KeyState


class KeyPool:
    """At least one key. `clock` is monotonic, in seconds; `draw` is in [0, 1)."""

    def __init__(
        self,
        keys: Sequence[ProviderKey],
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.keys = tuple(keys)
        self._clock = clock
        self._draw = draw
        self._rests: dict[str, _Rest] = {}

    @classmethod
    def of(cls, credentials: Credentials) -> Self:
        """A pool of one."""
        return cls([ProviderKey("1", credentials)])

    def pick(self, avoided: Collection[str] = ()) -> ProviderKey | None:
        """One that is ready, by weight; where all rest, the one that is ready first. None where all are avoided."""
        if len(self.keys) == 1:
            return None if avoided else self.keys[0]
        wanted = [key for key in self.keys if key.id not in avoided]
        if ready := [key for key in wanted if self.state(key) is KeyState.READY]:
            return self._drawn(ready)
        return min(wanted, key=lambda key: self._rests[key.id].until, default=None)

    def has_ready(self, avoided: Collection[str]) -> bool:
        return any(key.id not in avoided and self.state(key) is KeyState.READY for key in self.keys)

    def failed(self, key: ProviderKey, error: ProviderError) -> bool:
        """Whether the error is about the key, which then rests; another may do better."""
        if isinstance(error, ProviderRateLimitedError) and error.retryable:
            rest = _Rest(min(max(error.retry_after or 0.0, LIMITED_S), REFUSED_S), KeyState.LIMITED)
        elif isinstance(error, ProviderRateLimitedError | ProviderAuthError):
            rest = _Rest(REFUSED_S, KeyState.REFUSED)
        else:
            return False
        rest.until += self._clock()
        self._rests[key.id] = rest
        return True

    def worked(self, key: ProviderKey) -> None:
        if self._rests:
            self._rests.pop(key.id, None)

    def state(self, key: ProviderKey) -> KeyState:
        rest = self._rests.get(key.id)
        return KeyState.READY if rest is None or rest.until <= self._clock() else rest.state

    def _drawn(self, keys: Sequence[ProviderKey]) -> ProviderKey:
        left = self._draw() * sum(key.weight for key in keys)
        for key in keys:
            left -= key.weight
            if left < 0:
                return key
        return keys[-1]
