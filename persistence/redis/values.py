"""Values on Redis. Source: https://redis.io/docs/latest/commands/set/ (NX, GET, PX)."""

from __future__ import annotations

from .client import RedisClient, Script
from .keys import name_of

_RELEASE = Script(
    """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
)


class RedisValues:
    """Implements `ports.SharedValues`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def claim(self, organisation: str | None, key: str, value: str, *, seconds: float) -> str | None:
        name, milliseconds = _name(organisation, key), max(1, round(seconds * 1000))
        standing = await self._client.ask(lambda client: client.set(name, value, nx=True, get=True, px=milliseconds))
        # Its own value stands there when the answer to a first try was lost, and it was made once more.
        return None if standing in (None, value) else str(standing)

    async def read(self, organisation: str | None, key: str) -> str | None:
        found = await self._client.ask(lambda client: client.get(_name(organisation, key)))
        return None if found is None else str(found)

    async def write(self, organisation: str | None, key: str, value: str, *, seconds: float) -> None:
        name, milliseconds = _name(organisation, key), max(1, round(seconds * 1000))
        await self._client.ask(lambda client: client.set(name, value, px=milliseconds))

    async def release(self, organisation: str | None, key: str, value: str) -> bool:
        return bool(await self._client.run(_RELEASE, [_name(organisation, key)], [value]))


def _name(organisation: str | None, key: str) -> str:
    return name_of("value", organisation, key)
