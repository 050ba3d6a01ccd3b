"""All that one Redis, or one cluster, keeps for the processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from ..authorities import check_authorities
from ..ports import StoreUnavailableError
from .client import RedisClient, RedisRefusedError
from .counters import RedisCounters
from .events import RedisEvents
from .leases import RedisLeases
from .replays import RedisReplays
from .reservations import RedisReservations
from .values import RedisValues

log = structlog.get_logger("redis")


class RedisServer:
    """One server, or one cluster, with its connections. Opened by `open_redis`."""

    def __init__(self, client: RedisClient, events: RedisEvents) -> None:
        self._client = client
        self.events = events
        self.values = RedisValues(client)
        self.counters = RedisCounters(client)
        self.replays = RedisReplays(client)
        self.reservations = RedisReservations(client)
        self.leases = RedisLeases(client)

    async def look(self) -> str | None:
        """What keeps it from its work, in a line; None where nothing does."""
        try:
            await self._client.ask(lambda client: client.ping())
        except StoreUnavailableError as error:
            return str(error)
        return None


@asynccontextmanager
async def open_redis(uri: str, *, ca_file: Path | None = None) -> AsyncIterator[RedisServer]:
    """`uri` is redis:// or, with TLS, rediss://, and names one server, or one or several nodes of a cluster (after each
    other, with commas); which of the two it is, its server says, now or once it is there.
    Raises ValueError for an address or a file of authorities that is none, and where its server refuses the password,
    or the database."""
    check_authorities(ca_file)
    client = RedisClient(uri, ca_file=ca_file)
    try:
        try:
            await client.find()
        except RedisRefusedError as error:
            raise ValueError(str(error).removeprefix("Redis: ")) from None
        except StoreUnavailableError as error:
            log.warning("it is away: what processes share waits for it", reason=str(error))
        async with RedisEvents(client, ca_file=ca_file) as events:
            yield RedisServer(client, events)
    finally:
        await client.close()
