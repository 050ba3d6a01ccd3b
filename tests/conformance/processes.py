"""A port of what processes share, as two of them see it: in process, on one Redis, on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from persistence.redis.server import RedisServer, open_redis
from tests.servers.redis import cluster_or_skip, redis_or_skip

_Port = TypeVar("_Port")

WHERE = ("memory", "redis", "cluster")


@dataclass(frozen=True)
class Between(Generic[_Port]):
    """`ours` and `theirs`: as two processes see it; in process there is one. `later` lets time pass."""

    ours: _Port
    theirs: _Port
    later: Callable[[float], Awaitable[object]]


@asynccontextmanager
async def between(
    where: str, in_process: Callable[[Callable[[], float]], _Port], of: Callable[[RedisServer], _Port]
) -> AsyncIterator[Between[_Port]]:
    """`in_process` makes the port with a clock; `of` takes it from a Redis."""
    if where == "memory":
        now = [1000.0]

        async def later(seconds: float) -> None:
            now[0] += seconds

        one = in_process(lambda: now[0])
        yield Between(one, one, later)
        return
    async with both_of(where) as (ours, theirs):
        yield Between(of(ours), of(theirs), asyncio.sleep)


@asynccontextmanager
async def both_of(where: str) -> AsyncIterator[tuple[RedisServer, RedisServer]]:
    """Two connections to one Redis, or to two nodes of a cluster."""
    if where == "redis":
        uris = [redis_or_skip().uri] * 2
    else:
        nodes = cluster_or_skip()
        uris = [nodes[0].uri, nodes[2].uri]
    async with open_redis(uris[0]) as ours, open_redis(uris[1]) as theirs:
        yield ours, theirs
