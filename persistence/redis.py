"""Redis, one server or a cluster: what processes share. The only importer of its client.

Sources: https://redis.io/docs/latest/commands/set/ (NX, PX), https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags,
https://redis.io/docs/latest/develop/pubsub/ (a message to any node of a cluster reaches the listeners of all).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from .memory import Backlog
from .ports import StoreUnavailableError

TIMEOUT_S = 2.0
RECONNECT_S = 0.5
_POOL = 50
_PREFIX = "ai-middleware"
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_T = TypeVar("_T")
_Client = Redis | RedisCluster

log = structlog.get_logger("redis")


class RedisServer:
    """One server, or one cluster, with its connections. Opened by `open_redis`."""

    def __init__(self, client: _Client, node: Redis) -> None:
        self._client = client
        self.events = RedisEvents(client, node)
        self.values = RedisValues(client)

    async def look(self) -> str | None:
        """What keeps it from its work, in a line; None where nothing does."""
        try:
            await _asked(self._client.ping())
        except StoreUnavailableError as error:
            return str(error)
        return None


@asynccontextmanager
async def open_redis(uri: str, *, ca_file: Path | None = None) -> AsyncIterator[RedisServer]:
    """`uri` is redis:// or, with TLS, rediss://; whether it is a cluster's, its server says. Raises ValueError for an
    address that is none, or whose password is wrong; StoreUnavailableError where nobody answers."""
    options = _options(uri, ca_file)
    node: Redis = Redis.from_url(uri, max_connections=_POOL, **options)
    try:
        client = await _client(node, uri, options)
        try:
            server = RedisServer(client, node)
            async with server.events:
                yield server
        finally:
            if client is not node:
                await client.aclose()
    finally:
        await node.aclose()


def _options(uri: str, ca_file: Path | None) -> dict[str, Any]:
    if not uri.startswith(("redis://", "rediss://")):
        raise ValueError("an address begins with redis:// or, with TLS, rediss://")
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "health_check_interval": 15,
        "retry": Retry(NoBackoff(), 1),
    }
    return {**options, "ssl_ca_certs": str(ca_file)} if ca_file is not None else options


async def _client(node: Redis, uri: str, options: dict[str, Any]) -> _Client:
    try:
        about: Any = await _asked(node.info("cluster"))
        if not about.get("cluster_enabled"):
            return node
        cluster: RedisCluster = RedisCluster.from_url(uri, **options)
        await _asked(cluster.initialize())
    except (AuthenticationError, NoPermissionError) as error:
        raise ValueError(f"it refuses: {error}") from None
    return cluster


async def _asked(call: Awaitable[_T]) -> _T:
    """Raises StoreUnavailableError for what may pass."""
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            return await call
    except (AuthenticationError, NoPermissionError):
        raise
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailableError(f"Redis: {str(error) or type(error).__name__}") from error


class RedisValues:
    """Implements `ports.SharedValues`. All keys of an organisation carry its hash tag, so that they share a slot."""

    def __init__(self, client: _Client) -> None:
        self._client = client

    async def claim(self, organisation: str | None, key: str, value: str, *, seconds: float) -> str | None:
        name, milliseconds = _name(organisation, key), max(1, round(seconds * 1000))
        standing = await self._call(lambda: self._client.set(name, value, nx=True, get=True, px=milliseconds))
        return None if standing is None else str(standing)

    async def read(self, organisation: str | None, key: str) -> str | None:
        found = await self._call(lambda: self._client.get(_name(organisation, key)))
        return None if found is None else str(found)

    async def write(self, organisation: str | None, key: str, value: str, *, seconds: float) -> None:
        name, milliseconds = _name(organisation, key), max(1, round(seconds * 1000))
        await self._call(lambda: self._client.set(name, value, px=milliseconds))

    async def release(self, organisation: str | None, key: str, value: str) -> bool:
        return bool(await self._call(lambda: self._client.eval(_RELEASE, 1, _name(organisation, key), value)))

    async def _call(self, call: Callable[[], Any]) -> Any:
        return await _asked(call())


def _name(organisation: str | None, key: str) -> str:
    return f"{_PREFIX}:{key}" if organisation is None else f"{_PREFIX}:{{{organisation}}}:{key}"


class RedisEvents:
    """Implements `ports.Events`. One connection listens for all listeners, and comes back by itself."""

    def __init__(self, client: _Client, node: Redis) -> None:
        self._client = client
        self._pubsub = node.pubsub(ignore_subscribe_messages=False)
        self._listeners: defaultdict[str, set[Backlog]] = defaultdict(set)
        self._subscribed: dict[str, asyncio.Event] = {}
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        return

    async def __aexit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        with suppress(RedisError, OSError):  # it is being left anyway
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # the client's

    async def publish(self, channel: str, message: str) -> None:
        await _asked(self._client.execute_command("PUBLISH", _name(None, channel), message))

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncGenerator[str, None]]:
        name, backlog = _name(None, channel), Backlog()
        self._listeners[name].add(backlog)
        try:
            await self._subscribe(name)
            async with aclosing(backlog.messages()) as messages:
                yield messages
        finally:
            self._listeners[name].discard(backlog)
            if not self._listeners[name]:
                await self._unsubscribe(name)

    async def _subscribe(self, name: str) -> None:
        """Returns when the server has said that it listens."""
        if name not in self._subscribed:
            self._subscribed[name] = asyncio.Event()
            await _asked(self._pubsub.subscribe(name))
            if self._reader is None:
                self._reader = asyncio.create_task(self._read(), name="redis-events")
        await _asked(self._subscribed[name].wait())

    async def _unsubscribe(self, name: str) -> None:
        del self._listeners[name]
        self._subscribed.pop(name, None)
        with suppress(StoreUnavailableError):  # a connection that is gone listens to nothing
            await _asked(self._pubsub.unsubscribe(name))

    async def _read(self) -> None:
        """A connection that breaks is made anew by the client, its subscriptions with it."""
        while True:
            try:
                message = await self._pubsub.get_message(timeout=None)
            except (RedisError, OSError) as error:
                log.warning("other processes are not heard of", reason=str(error))
                await asyncio.sleep(RECONNECT_S)
                with suppress(RedisError, OSError):
                    await self._pubsub.connect()  # type: ignore[no-untyped-call]  # the client's
                continue
            if message is None:
                await asyncio.sleep(RECONNECT_S)
            elif message["type"] == "subscribe" and (event := self._subscribed.get(message["channel"])):
                event.set()
            elif message["type"] == "message":
                for backlog in self._listeners.get(message["channel"], ()):
                    backlog.put(message["data"])
