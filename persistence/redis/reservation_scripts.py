"""What runs on Redis in one step for limits and leases. All keys of an organisation are in one slot.

Sources: https://redis.io/docs/latest/develop/interact/programmability/eval-intro/ (nothing else runs meanwhile),
https://redis.io/docs/latest/commands/time/ (one clock for all processes).
"""

from __future__ import annotations

from ..reservation_records import PARTS
from .client import Script

KEPT_S = 40 * 86_400
"""For how long what belongs to an organisation is kept where it asks for nothing."""

SETTLED_S = 60
"""For how long it is remembered that a reservation was settled: a call whose answer was lost may be made again, and one
that was given up may come late."""

OPENING_S = 5
"""For so long whoever opens a budget has the time to look up what was spent."""

AGAIN_MS = 20
"""After so long it is worth a look whether that is done."""

TOLD_S = 86_400
"""For how long it is remembered that somebody was told of a reservation: longer than any process sleeps and goes on."""

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

RESERVE = Script(
    _COMMON
    + f"""
local leases, held, done, id, lease = KEYS[1], KEYS[2], KEYS[4], ARGV[1], tonumber(ARGV[2])
if redis.call('HEXISTS', held, id) == 1 or redis.call('ZSCORE', done, id) then return false end
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
  local key = KEYS[i + 4]
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
  local key = KEYS[i + 4]
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
"""Keys: those of `leases_of`, one an item. Arguments: the id, the lease's milliseconds, the note, the items. What is
held has three lines: the note, the items as they came (Lua's own JSON would round amounts), their parts of time."""

SETTLE = Script(
    _COMMON
    + f"""
local leases, held, told, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local next_key, left = 5, {{}}
redis.call('ZREMRANGEBYSCORE', done, '-inf', now - {SETTLED_S * 1000})
redis.call('PEXPIRE', done, {2 * SETTLED_S * 1000})
local function settle(each)
  local first_key = next_key
  next_key = next_key + #each.items
  local found = redis.call('HGET', held, each.id)
  if each.found then
    if not found then return end
  elseif redis.call('ZSCORE', told, each.id) then
    left[#left + 1] = each.id
    return
  elseif redis.call('ZADD', done, 'NX', now, each.id) == 0 then
    return
  end
  local items, parts = nil, {{}}
  if found then
    local _, text, numbers = record_of(found)
    items = cjson.decode(text)
    for part in string.gmatch(numbers .. ',', '(.-),') do parts[#parts + 1] = part end
    redis.call('HDEL', held, each.id)
    redis.call('ZREM', leases, each.id)
  end
  for i, item in ipairs(each.items) do
    local key = KEYS[first_key + i - 1]
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
for _, each in ipairs(cjson.decode(ARGV[1])) do settle(each) end
return left
"""
)
"""Keys: those of `leases_of`, one an item of all reservations. Argument: the reservations with their items. Answers
those that are left to whoever was told of them."""

KEEP = Script(
    _COMMON
    + f"""
local leases, held, told, done, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4], tonumber(ARGV[1])
local function is_gone(id) return redis.call('ZSCORE', told, id) or redis.call('ZSCORE', done, id) end
for i = 2, #ARGV, 3 do
  local id, note, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HEXISTS', held, id) == 0 and not is_gone(id) then
    local parts = {{}}
    for n, item in ipairs(cjson.decode(text)) do
      parts[n] = '-1'
      if item.kind == 'budget' then
        redis.call('HINCRBY', item.key, 'reserved', whole(item.amount))
        redis.call('PEXPIRE', item.key, item.ms)
      elseif item.kind == 'places' then
        redis.call('ZADD', item.key, now + lease, item.holder)
        redis.call('PEXPIRE', item.key, lease)
      end
    end
    redis.call('HSET', held, id, table.concat({{note, text, table.concat(parts, ',')}}, '\\n'))
    redis.call('ZADD', leases, now + lease, id)
  end
end
redis.call('PEXPIRE', held, {KEPT_S * 1000})
redis.call('PEXPIRE', leases, {KEPT_S * 1000})
"""
)
"""Keys: those of `leases_of`. Arguments: the lease's milliseconds, then of each its id, its note, its
items. The part of time is before all that a window has."""

PROLONG = Script(
    _COMMON
    + """
local leases, held, told, lease = KEYS[1], KEYS[2], KEYS[3], tonumber(ARGV[1])
local lost = {}
for i = 2, #ARGV do
  local found = redis.call('HGET', held, ARGV[i])
  if redis.call('ZSCORE', told, ARGV[i]) then
    found = nil
  elseif not found then
    lost[#lost + 1] = ARGV[i]
  end
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
return lost
"""
)

EXPIRED = Script(
    _COMMON
    + f"""
local leases, held, told = KEYS[1], KEYS[2], KEYS[3]
local found = {{}}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local record = redis.call('HGET', held, id)
  if record then
    redis.call('ZADD', leases, now + ARGV[1], id)
    redis.call('ZADD', told, now, id)
    found[#found + 1] = id
    found[#found + 1] = record
  else
    redis.call('ZREM', leases, id)
  end
end
redis.call('ZREMRANGEBYSCORE', told, '-inf', now - {TOLD_S * 1000})
redis.call('PEXPIRE', told, {TOLD_S * 1000})
return found
"""
)

ENROL = Script(
    _COMMON
    + f"""
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], {KEPT_S * 1000})
"""
)

LEFT = Script(
    _COMMON
    + """
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', KEYS[1], now + ARGV[1], name)
  found[#found + 1] = name
  found[#found + 1] = redis.call('ZSCORE', KEYS[1], name)
end
return found
"""
)

STRIKE = Script("if redis.call('ZSCORE', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('ZREM', KEYS[1], ARGV[1]) end")

OPEN = Script(
    _COMMON
    + f"""
local budget, known = KEYS[1], KEYS[2]
redis.call('SET', known, whole(now), 'NX')
redis.call('PEXPIRE', known, {KEPT_S * 1000})
if redis.call('HEXISTS', budget, 'begun') == 1 then return {{0, 0}} end
local wait = redis.call('GET', known) + ARGV[2] - now
if wait > 0 then return {{wait, 0}} end
if tonumber(redis.call('HGET', budget, 'opening') or 0) > now then return {{{AGAIN_MS}, 0}} end
redis.call('HSET', budget, 'opening', whole(now + {OPENING_S * 1000}), 'settled', 0)
redis.call('PEXPIRE', budget, ARGV[1])
return {{0, redis.call('HINCRBY', budget, 'number', 1), redis.call('GET', known)}}
"""
)
"""Keys: the budget, and since when anything is known of the organisation. Arguments: the milliseconds for which
the budget is kept, and for which others may tell what they hold. Answers how many to wait, or whose turn it is and
since when anything is known."""

BEGIN = Script(
    """
if redis.call('HGET', KEYS[1], 'number') == ARGV[3] and redis.call('HSETNX', KEYS[1], 'begun', 1) == 1 then
  redis.call('HINCRBY', KEYS[1], 'settled', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
"""
)

OUTDATE = Script(
    """
for _, budget in ipairs(KEYS) do
  if redis.call('HDEL', budget, 'begun', 'opening') > 0 then redis.call('HINCRBY', budget, 'number', 1) end
end
"""
)
"""Keys: the budgets. Whoever is about to begin one of them is not any more."""

USED = Script(
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
