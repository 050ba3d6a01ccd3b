"""How much of this server an operation takes, against what its caller has left: a leaky bucket for each."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from time import thread_time

from .errors import RateLimitedError
from .principal import Principal

MAX_BUCKETS = 50_000
"""The one longest unused goes first; it is the emptiest but for those who came in a crowd."""

POINTS_A_SECOND = 10_000
"""Of CPU: the price of what nobody knows before it is done, and what a point stands for elsewhere too."""

TURN_S = 0.002
"""Of CPU. What takes longer is done in pieces, between which others have their turn."""

Caller = tuple[str, str]
"""Organisation, and the API key or the subject: tokens that a key has minted count against the key."""


def caller_of(principal: Principal) -> Caller:
    return principal.organisation, principal.key_id or principal.subject


@dataclass(frozen=True, slots=True)
class Throttle:
    """In points, and points a second."""

    maximum_available: int
    currently_available: int
    restore_rate: int


class CostBuckets:
    """`clock` is monotonic, in seconds. `tell` hears of all that is spent here, what is given back as a negative."""

    def __init__(self, maximum: int, restore_rate: int, clock: Callable[[], float]) -> None:
        self._maximum = maximum
        self._rate = restore_rate
        self._clock = clock
        self._levels: OrderedDict[Caller, tuple[float, float]] = OrderedDict()
        self.tell: Callable[[Caller, float], None] | None = None

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, caller: Caller, points: float) -> None:
        """Raises RateLimitedError, and takes nothing, where there is not so much left."""
        level = self._level(caller) + points
        if level > self._maximum:
            error = RateLimitedError(
                f"this operation costs {ceil(points)} points, and {self._left(level - points)} of {self._maximum} are "
                f"left; {self._rate} a second come back"
            )
            error.retry_after_ms = ceil((level - self._maximum) / self._rate * 1000)
            raise error
        self.add(caller, points)

    def add(self, caller: Caller, points: float) -> None:
        """Whatever is left; negative: give back."""
        self.heard(caller, points)
        if self.tell is not None and points:
            self.tell(caller, points)

    def heard(self, caller: Caller, points: float) -> None:
        """What another process has let it spend counts here too."""
        self._levels[caller] = max(0.0, self._level(caller) + points), self._clock()
        self._levels.move_to_end(caller)
        if len(self._levels) > MAX_BUCKETS:
            self._levels.popitem(last=False)

    def seconds_to_half(self, caller: Caller) -> float:
        """Until half of what there can be is left; 0 where it is."""
        return max(0.0, self._level(caller) - self._maximum / 2) / self._rate

    def throttle(self, caller: Caller) -> Throttle:
        return Throttle(self._maximum, self._left(self._level(caller)), self._rate)

    def _level(self, caller: Caller) -> float:
        level, at = self._levels.get(caller, (0.0, 0.0))
        return max(0.0, level - (self._clock() - at) * self._rate)

    def _left(self, level: float) -> int:
        return max(0, int(self._maximum - level))


class Meter:
    """Work whose size an operation does not tell, such as the reading of a file: it costs its caller the CPU that it
    takes. Where less than half of the points are left it goes on as they come back: that half is for other calls.
    Without `buckets` nobody pays."""

    def __init__(self, buckets: CostBuckets | None, caller: Caller) -> None:
        self._buckets = buckets
        self._caller = caller
        self._seconds = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Nothing is awaited inside: the work of others would be counted."""
        begun = thread_time()
        try:
            yield
        finally:
            self.add(thread_time() - begun)

    def add(self, seconds: float) -> None:
        """It was done already."""
        self._seconds += seconds

    async def turn(self) -> None:
        """To be awaited often: once in TURN_S it is paid, and others come first."""
        if self._seconds >= TURN_S:
            self.pay()
            await asyncio.sleep(0.0 if self._buckets is None else self._buckets.seconds_to_half(self._caller))

    def pay(self) -> None:
        if self._buckets is not None:
            self._buckets.add(self._caller, self._seconds * POINTS_A_SECOND)
        self._seconds = 0.0
