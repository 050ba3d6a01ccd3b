"""Counters on Redis. A key is a window: it begins with the first take, and its time to live is what is left of it.

Sources: https://redis.io/docs/latest/develop/interact/programmability/eval-intro/ (nothing else runs meanwhile, and no
key expires), https://redis.io/docs/latest/commands/pttl/.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import NamedTuple

from ..ports import StoreUnavailableError
from ..shared_records import Demand, Shortage
from .client import RedisClient, Script
from .keys import name_of

_TAKE = Script(
    """
local counted = {}
for i, key in ipairs(KEYS) do
  local amount, limit = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1])
  local before = counted[key] or tonumber(redis.call('GET', key) or 0)
  if before + amount > limit then return {i, limit - before, redis.call('PTTL', key)} end
  counted[key] = before + amount
end
for i, key in ipairs(KEYS) do
  local amount, milliseconds = ARGV[3 * i - 2], ARGV[3 * i]
  if amount ~= '0' and not redis.call('SET', key, amount, 'NX', 'PX', milliseconds) then
    redis.call('INCRBY', key, amount)
  end
end
return false
"""
)
"""Of each key: the amount, the limit, the window's milliseconds. Amounts stay text, since Lua's numbers are doubles."""

_GIVE = Script(
    """
for i, key in ipairs(KEYS) do
  local amount, milliseconds, ago = ARGV[3 * i - 2], tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local left = redis.call('PTTL', key)
  if left >= 0 and milliseconds - left >= ago then
    local counted = redis.call('GET', key)
    if tonumber(counted) < tonumber(amount) then amount = counted end
    redis.call('DECRBY', key, amount)
  end
end
"""
)
"""Of each key: the amount, the window's milliseconds, for how many milliseconds it has been taken."""


_OWED_AT_MOST = 1_000


class _Taken(NamedTuple):
    """`at`: by the event loop's clock."""

    organisation: str
    demands: Sequence[Demand]
    at: float

    @property
    def is_over(self) -> bool:
        return _now() - self.at > max(demand.seconds for demand in self.demands)


class RedisCounters:
    """Implements `ports.Counters`. No call is repeated where the connection breaks: it would be counted twice.

    What could not be given back at once, because nobody answered, is given back with the next take."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._owed: deque[_Taken] = deque(maxlen=_OWED_AT_MOST)

    async def take(self, organisation: str, demands: Sequence[Demand]) -> Shortage | None:
        if self._owed:
            await self._undo([self._owed.popleft() for _ in range(len(self._owed))])
        taken: list[_Taken] = []
        for step in await self._steps(organisation, demands):
            try:
                shortage = await self._take(organisation, step)
            except StoreUnavailableError:
                await self._undo(taken)
                raise
            if shortage is not None:
                await self._undo(taken)
                return shortage
            taken.append(_Taken(organisation, step, _now()))
        return None

    async def give(self, organisation: str, demands: Sequence[Demand], *, seconds_ago: float = 0.0) -> None:
        for step in await self._steps(organisation, demands):
            await self._give(organisation, step, seconds_ago)

    async def _steps(self, organisation: str, demands: Sequence[Demand]) -> Sequence[Sequence[Demand]]:
        """What shares a slot is one step, the organisation's the first. One server does all in one."""
        ordered = sorted(demands, key=lambda demand: demand.of_operator)
        slots = await self._client.slots([_name(organisation, demand) for demand in ordered])
        steps: defaultdict[int, list[Demand]] = defaultdict(list)
        for slot, demand in zip(slots, ordered, strict=True):
            steps[slot].append(demand)
        return list(steps.values())

    async def _take(self, organisation: str, step: Sequence[Demand]) -> Shortage | None:
        arguments = [text for one in step for text in (one.amount, one.limit, _milliseconds(one))]
        names = [_name(organisation, demand) for demand in step]
        short = await self._client.run(_TAKE, names, arguments, again=False)
        if short is None:
            return None
        number, left, milliseconds = short
        return Shortage(step[number - 1], max(0, left), max(0, milliseconds) / 1000)

    async def _give(self, organisation: str, step: Sequence[Demand], seconds_ago: float) -> None:
        ago = int(seconds_ago * 1000)
        arguments = [text for one in step for text in (one.amount, _milliseconds(one), ago)]
        await self._client.run(_GIVE, [_name(organisation, demand) for demand in step], arguments, again=False)

    async def _undo(self, taken: Sequence[_Taken]) -> None:
        """Where one can't be given back now, neither can the others: they are owed."""
        for number, each in enumerate(taken):
            if each.is_over:
                continue
            try:
                await self._give(each.organisation, each.demands, _now() - each.at)
            except StoreUnavailableError:
                self._owed.extend(taken[number:])
                return


def _now() -> float:
    return asyncio.get_running_loop().time()


def _name(organisation: str, demand: Demand) -> str:
    return name_of("counter", None if demand.of_operator else organisation, demand.key)


def _milliseconds(demand: Demand) -> int:
    return max(1, round(demand.seconds * 1000))
