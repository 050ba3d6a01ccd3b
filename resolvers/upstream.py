"""Connections to vendors, which a process has so many of: no organisation shuts out the others."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict

from .errors import ServiceUnavailableError

SHARE = 0.1
WAIT_S = 5.0

_Turn = asyncio.Future[None]


def share_of(limit: int) -> int:
    """How many there are besides."""
    return max(1, int(limit * SHARE))


class Upstream:
    """Places for attempts that are under way. `limit` of them are anybody's; a SHARE besides is for organisations that
    have less than that, as `gateway.capacity` has it of operations. Who finds none waits for WAIT_S; organisations that
    wait take turns."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._share = share_of(limit)
        self._taken = 0
        self._taken_by: Counter[str] = Counter()
        self._waiting: OrderedDict[str, OrderedDict[_Turn, None]] = OrderedDict()

    async def take(self, organisation: str) -> None:
        """A place, until `leave`. Raises ServiceUnavailableError."""
        if self._has_room(organisation):
            self._give(organisation)
        else:
            await self._wait(organisation)

    def leave(self, organisation: str) -> None:
        self._taken -= 1
        self._taken_by[organisation] -= 1
        if not self._taken_by[organisation]:
            del self._taken_by[organisation]
        while (following := next((each for each in self._waiting if self._has_room(each)), None)) is not None:
            turn = next(iter(self._waiting[following]))
            self._forget(following, turn)
            if turn.done():
                continue  # its caller has gone just now
            if following in self._waiting:
                self._waiting.move_to_end(following)
            self._give(following)
            turn.set_result(None)

    def _has_room(self, organisation: str) -> bool:
        return self._taken < self._limit or (
            self._taken < self._limit + self._share and self._taken_by[organisation] < self._share
        )

    def _give(self, organisation: str) -> None:
        self._taken += 1
        self._taken_by[organisation] += 1

    async def _wait(self, organisation: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(organisation, OrderedDict())[turn] = None
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException as error:  # whatever it is, a place that was given just then is given on
            if turn.done() and not turn.cancelled():
                self.leave(organisation)
            else:
                self._forget(organisation, turn)
            if isinstance(error, TimeoutError):
                raise _busy() from None
            raise

    def _forget(self, organisation: str, turn: _Turn) -> None:
        turns = self._waiting.get(organisation)
        if turns is not None:
            turns.pop(turn, None)
            if not turns:
                del self._waiting[organisation]


def _busy() -> ServiceUnavailableError:
    error = ServiceUnavailableError("the server has as many calls to vendors under way as it may: ask again")
    error.retry_after_ms = round(WAIT_S * 1000)
    return error
