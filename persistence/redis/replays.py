"""Replays on Redis Streams. The entry of sequence n has the id "<n + 1>-0", since 0-0 is none.

Redis does not tell what a trim has forgotten (its max-deleted-entry-id is that of XDEL alone), so each entry names the
one before it: where that is newer than what a reader has, something between has been forgotten.

Sources: https://redis.io/docs/latest/commands/xadd/ (MAXLEN ~), https://redis.io/docs/latest/commands/xrange/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ports import REPLAYED_AT_MOST
from ..shared_records import Replayed
from .client import RedisClient, Script
from .keys import name_of

_APPEND = Script(
    """
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local before = newest and string.match(newest[1], '^%d+') or '0'
for i = 3, #ARGV, 2 do
  if tonumber(ARGV[i]) > tonumber(before) then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], ARGV[i] .. '-0', 'event', ARGV[i + 1], 'before', before)
    before = ARGV[i]
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)
"""How many are kept, the stream's milliseconds; then of each event: the number of its id, and what it is."""


class RedisReplays:
    """Implements `ports.Replays`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def append(self, organisation: str, stream: str, events: Sequence[Replayed], *, seconds: float) -> None:
        arguments: list[str | int] = [REPLAYED_AT_MOST, max(1, round(seconds * 1000))]
        for event in events:
            arguments += (event.sequence + 1, event.event)
        await self._client.run(_APPEND, [_name(organisation, stream)], arguments)

    async def read(self, organisation: str, stream: str, *, after: int, limit: int) -> Sequence[Replayed] | None:
        name = _name(organisation, stream)
        found: Any = await self._client.ask(lambda client: client.xrange(name, min=f"({after + 1}-0", count=limit))
        if not found:
            return [] if await self._client.ask(lambda client: client.exists(name)) else None
        if int(found[0][1]["before"]) > after + 1:
            return None
        return [Replayed(int(entry.partition("-")[0]) - 1, fields["event"]) for entry, fields in found]


def _name(organisation: str, stream: str) -> str:
    return name_of("replay", organisation, stream)
