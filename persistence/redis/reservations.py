"""Limits on Redis: what several processes take of them in one step.

Sources: https://redis.io/docs/latest/develop/interact/programmability/eval-intro/ (nothing else runs meanwhile),
https://redis.io/docs/latest/commands/time/ (one clock for all processes). All keys of an organisation are in one slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from ..reservation_records import PARTS, Allowance, Expired, Kind, Refused, Settled, Unbegun
from .client import RedisClient, Script
from .keys import name_of

KEPT_S = 40 * 86_400
"""For how long what belongs to an organisation is kept where it asks for nothing."""

_COMMON = f"""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function whole(number) return string.format('%.0f', number) end

local function drop_old(key, ms)
  local first = math.floor((now - ms) / (ms / {PARTS}))
  local known = redis.call('HMGET', key, 'oldest', 'total')
  if not known[1] then return 0, first end
  local oldest, total = tonumber(known[1]), tonumber(known[2])
  if oldest >= first then return total, first end
  local gone = {{}}
  for part = oldest, math.min(first - 1, oldest + {PARTS} + 1) do gone[#gone + 1] = whole(part) end
  for _, amount in ipairs(redis.call('HMGET', key, unpack(gone))) do total = total - (amount or 0) end
  redis.call('HDEL', key, unpack(gone))
  redis.call('HSET', key, 'oldest', whole(first), 'total', whole(total))
  return total, first
end

local function record_of(text)
  local note, items, parts = string.match(text, '^(.-)\\n(.-)\\n(.*)$')
  return note, items, parts
end
"""

_RESERVE = Script(
    _COMMON
    + f"""
local leases, held, id, lease = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2])
if redis.call('HEXISTS', held, id) == 1 then return false end
local items = cjson.decode(ARGV[4])

local function room_in(key, ms, need)
  local parts, all = {{}}, redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local part = tonumber(all[i])
    if part then parts[#parts + 1] = {{part, tonumber(all[i + 1])}} end
  end
  table.sort(parts, function(one, other) return one[1] < other[1] end)
  for _, each in ipairs(parts) do
    need = need - each[2]
    if need <= 0 then return (each[1] + 1) * (ms / {PARTS}) + ms - now end
  end
  return -1
end

for i, item in ipairs(items) do
  local key = KEYS[i + 2]
  if item.kind == 'budget' then
    local known = redis.call('HMGET', key, 'begun', 'settled', 'reserved')
    if not known[1] then return {{i, 'unbegun'}} end
    local settled, used = tonumber(known[2] or 0), (known[2] or 0) + (known[3] or 0)
    if item.amount > item.limit - used then return {{i, 'refused', whole(used), whole(settled), -1}} end
  elseif item.kind == 'places' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    local used = redis.call('ZCARD', key)
    if item.amount > item.limit - used and not redis.call('ZSCORE', key, item.holder) then
      return {{i, 'refused', used, used, -1}}
    end
  else
    local used = drop_old(key, item.ms)
    if item.amount > item.limit - used then
      local wait = item.amount <= item.limit and room_in(key, item.ms, used + item.amount - item.limit) or -1
      return {{i, 'refused', whole(used), whole(used), math.ceil(wait)}}
    end
  end
end
local parts = {{}}
for i, item in ipairs(items) do
  local key = KEYS[i + 2]
  parts[i] = ''
  if item.kind == 'budget' then
    redis.call('HINCRBY', key, 'reserved', whole(item.amount))
  elseif item.kind == 'places' then
    redis.call('ZADD', key, now + lease, item.holder)
    redis.call('PEXPIRE', key, lease)
  else
    parts[i] = whole(math.floor(now / (item.ms / {PARTS})))
    redis.call('HSETNX', key, 'oldest', parts[i])
    redis.call('HINCRBY', key, parts[i], whole(item.amount))
    redis.call('HINCRBY', key, 'total', whole(item.amount))
    redis.call('PEXPIRE', key, 2 * item.ms)
  end
end
redis.call('HSET', held, id, table.concat({{ARGV[3], ARGV[4], table.concat(parts, ',')}}, '\\n'))
redis.call('ZADD', leases, now + lease, id)
redis.call('PEXPIRE', held, {KEPT_S * 1000})
redis.call('PEXPIRE', leases, {KEPT_S * 1000})
return false
"""
)
"""Keys: leases, what is held, one an item. Arguments: the id, the lease's milliseconds, the note, the items. What is
held has three lines: the note, the items as they came (Lua's own JSON would round amounts), their parts of time."""

_SETTLE = Script(
    _COMMON
    + """
local leases, held = KEYS[1], KEYS[2]
local next_key = 3
for _, each in ipairs(cjson.decode(ARGV[1])) do
  local found = redis.call('HGET', held, each.id)
  local items, parts = nil, {}
  if found then
    local _, text, numbers = record_of(found)
    items = cjson.decode(text)
    for part in string.gmatch(numbers .. ',', '(.-),') do parts[#parts + 1] = part end
  end
  redis.call('HDEL', held, each.id)
  redis.call('ZREM', leases, each.id)
  for i, item in ipairs(each.items) do
    local key = KEYS[next_key]
    next_key = next_key + 1
    local had = items and items[i]
    if item.kind == 'places' then
      redis.call('ZREM', key, item.holder)
    elseif item.kind == 'budget' then
      if redis.call('EXISTS', key) == 1 then
        redis.call('HINCRBY', key, 'settled', whole(item.amount))
        if had then redis.call('HINCRBY', key, 'reserved', whole(-had.amount)) end
      end
    elseif had then
      local _, first = drop_old(key, item.ms)
      if tonumber(parts[i]) >= first and redis.call('HEXISTS', key, parts[i]) == 1 then
        redis.call('HINCRBY', key, parts[i], whole(item.amount - had.amount))
        redis.call('HINCRBY', key, 'total', whole(item.amount - had.amount))
      end
    end
  end
end
"""
)
"""Keys: leases, what is held, one an item of all reservations. Argument: the reservations with their items."""

_PROLONG = Script(
    _COMMON
    + """
local leases, held, lease = KEYS[1], KEYS[2], tonumber(ARGV[1])
for i = 2, #ARGV do
  local found = redis.call('HGET', held, ARGV[i])
  if found then
    redis.call('ZADD', leases, now + lease, ARGV[i])
    local _, text = record_of(found)
    for _, item in ipairs(cjson.decode(text)) do
      if item.kind == 'places' then
        redis.call('ZADD', item.key, now + lease, item.holder)
        redis.call('PEXPIRE', item.key, lease)
      end
    end
  end
end
"""
)

_EXPIRED = Script(
    _COMMON
    + """
local leases, held = KEYS[1], KEYS[2]
local found = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local record = redis.call('HGET', held, id)
  if record then
    redis.call('ZADD', leases, now + ARGV[1], id)
    found[#found + 1] = id
    found[#found + 1] = record
  else
    redis.call('ZREM', leases, id)
  end
end
return found
"""
)

_BEGIN = Script(
    """
local spent = ARGV[1]
redis.call('HSETNX', KEYS[1], 'settled', 0)
if spent ~= '' and redis.call('HSETNX', KEYS[1], 'begun', 1) == 1 then
  redis.call('HINCRBY', KEYS[1], 'settled', spent)
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)
"""Without an amount it is opened alone."""

_USED = Script(
    _COMMON
    + """
local found = {}
for i, item in ipairs(cjson.decode(ARGV[1])) do
  if item.kind == 'budget' then
    local known = redis.call('HMGET', KEYS[i], 'begun', 'settled', 'reserved')
    found[i] = known[1] and whole((known[2] or 0) + (known[3] or 0)) or ''
  elseif item.kind == 'places' then
    found[i] = whole(redis.call('ZCOUNT', KEYS[i], '(' .. now, '+inf'))
  else
    found[i] = whole((drop_old(KEYS[i], item.ms)))
  end
end
return found
"""
)

_ORGANISATIONS = name_of("limited", None, "organisations")


class RedisReservations:
    """Implements `ports.Reservations`. Every call may be repeated where the connection breaks, but `settle`: its
    amounts would count twice."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._told: set[str] = set()

    async def reserve(
        self, organisation: str, reservation: str, asked: Sequence[Allowance], *, lease_s: float, note: str = ""
    ) -> Refused | Unbegun | None:
        if organisation not in self._told:
            await self._client.ask(lambda client: client.sadd(_ORGANISATIONS, organisation))
            self._told.add(organisation)
        keys = [*_held(organisation), *(_name(organisation, each) for each in asked)]
        items = orjson.dumps([_item(organisation, each, each.amount) for each in asked]).decode()
        answer = await self._client.run(_RESERVE, keys, [reservation, _milliseconds(lease_s), note, items])
        if answer is None:
            return None
        allowance = asked[answer[0] - 1]
        if answer[1] == "unbegun":
            return Unbegun(allowance)
        _, _, used, settled, wait = answer
        return Refused(allowance, int(used), int(settled), None if wait < 0 else wait / 1000)

    async def settle(self, organisation: str, settled: Sequence[Settled]) -> None:
        keys = [*_held(organisation), *(_name(organisation, item) for each in settled for item in each.asked)]
        told = [{"id": each.reservation, "items": _settled_items(organisation, each)} for each in settled]
        await self._client.run(_SETTLE, keys, [orjson.dumps(told).decode()], again=False)

    async def prolong(self, organisation: str, reservations: Sequence[str], *, lease_s: float) -> None:
        await self._client.run(_PROLONG, _held(organisation), [_milliseconds(lease_s), *reservations])

    async def expired(self, organisation: str, *, lease_s: float, limit: int) -> Sequence[Expired]:
        arguments = [_milliseconds(lease_s), limit]
        found = await self._client.run(_EXPIRED, _held(organisation), arguments, again=False)
        return [_expired(*found[n : n + 2]) for n in range(0, len(found), 2)]

    async def open(self, organisation: str, budget: Allowance) -> None:
        await self._client.run(_BEGIN, [_name(organisation, budget)], ["", _milliseconds(budget.seconds)])

    async def begin(self, organisation: str, budget: Allowance, spent: int) -> None:
        await self._client.run(_BEGIN, [_name(organisation, budget)], [spent, _milliseconds(budget.seconds)])

    async def used(self, organisation: str, asked: Sequence[Allowance]) -> Sequence[int | None]:
        keys = [_name(organisation, each) for each in asked]
        if not keys:
            return []
        items = orjson.dumps([_item(organisation, each, 0) for each in asked]).decode()
        return [int(each) if each else None for each in await self._client.run(_USED, keys, [items])]

    async def organisations(self) -> Sequence[str]:
        return [str(each) for each in await self._client.ask(lambda client: client.smembers(_ORGANISATIONS))]


def _held(organisation: str) -> tuple[str, str]:
    return name_of("limit", organisation, "leases"), name_of("limit", organisation, "held")


def _name(organisation: str, asked: Allowance) -> str:
    return name_of("limit", organisation, f"of:{asked.key}")


def _item(organisation: str, asked: Allowance, amount: int) -> dict[str, object]:
    return {
        "name": asked.key,
        "key": _name(organisation, asked),
        "kind": asked.kind,
        "amount": amount,
        "limit": asked.limit,
        "ms": _milliseconds(asked.seconds),
        "holder": asked.holder,
    }


def _settled_items(organisation: str, settled: Settled) -> list[dict[str, object]]:
    pairs = zip(settled.asked, settled.amounts, strict=True)
    return [_item(organisation, allowance, amount) for allowance, amount in pairs]


def _expired(reservation: str, record: str) -> Expired:
    note, items, _ = record.split("\n")
    asked = tuple(
        Allowance(each["name"], Kind(each["kind"]), each["amount"], each["limit"], each["ms"] / 1000, each["holder"])
        for each in orjson.loads(items)
    )
    return Expired(reservation, note, asked)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
