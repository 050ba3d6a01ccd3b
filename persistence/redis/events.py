"""Events over Redis. Source: https://redis.io/docs/latest/develop/pubsub/ (a message to any node of a cluster reaches
the listeners of all)."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Self

import structlog
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..memory import Backlog
from ..ports import StoreUnavailableError
from .client import Client, RedisClient, bounded, connection_options
from .keys import name_of

RECONNECT_S = 0.5
QUIET_S = 5.0
"""After so long without a word the server is asked for one; and after as long again the connection is given up: its way
may be gone without anybody having said so."""

log = structlog.get_logger("redis")


class RedisEvents:
    """Implements `ports.Events`. One connection listens for all listeners, and comes back by itself."""

    def __init__(self, client: RedisClient, *, ca_file: Path | None) -> None:
        self._client = client
        self._ca_file = ca_file
        self._node, self._pubsub = self._listening(client.addresses()[0])
        self._listeners: defaultdict[str, set[Backlog]] = defaultdict(set)
        self._subscribed: dict[str, asyncio.Event] = {}
        self._reader: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """Of those that say what to listen to: until the one connection is there, each would make one."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._reader is not None and not self._reader.done():
            self._reader.cancel()  # again, where the client has swallowed it
            await asyncio.wait([self._reader], timeout=RECONNECT_S)
        with suppress(RedisError, OSError):  # it is being left anyway
            await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # the client's
        await self._node.aclose()

    async def publish(self, channel: str, message: str) -> None:
        await self._client.ask(lambda client: _publish(client, _name(channel), message))

    @asynccontextmanager
    async def listen(self, channel: str) -> AsyncIterator[AsyncGenerator[str, None]]:
        name, backlog = _name(channel), Backlog()
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
            await self._subscribe_first(name)
            if self._reader is None:
                self._reader = asyncio.create_task(self._read(), name="redis-events")
        await bounded(self._subscribed[name].wait())

    async def _subscribe_first(self, name: str) -> None:
        """Before anybody reads, this is what finds that a node is gone, and goes to another."""
        await bounded(self._turn.acquire())
        try:
            await bounded(self._pubsub.subscribe(name))
        except StoreUnavailableError:
            if self._reader is not None or len(self._client.addresses()) == 1:
                raise
            await bounded(self._come_back())
        finally:
            self._turn.release()

    async def _unsubscribe(self, name: str) -> None:
        del self._listeners[name]
        self._subscribed.pop(name, None)
        with suppress(StoreUnavailableError):  # a connection that is gone listens to nothing
            await bounded(self._unsubscribe_last(name))

    async def _unsubscribe_last(self, name: str) -> None:
        async with self._turn:
            if name not in self._listeners:  # somebody may have come meanwhile
                await self._pubsub.unsubscribe(name)

    async def _read(self) -> None:
        """A connection that breaks is made anew by the client, its subscriptions with it."""
        asked = False
        while True:
            try:
                message = await self._pubsub.get_message(timeout=QUIET_S)
                if message is None:
                    asked = await self._ask_whether_it_lives(asked)
                    continue
                asked = False
            except (RedisError, OSError, TimeoutError, RuntimeError) as error:  # the last for one that is not connected
                asked = False
                log.warning("other processes are not heard of", reason=str(error))
                await asyncio.sleep(RECONNECT_S)
                await self._come_back()
                continue
            if message["type"] == "subscribe" and (event := self._subscribed.get(message["channel"])):
                event.set()
            elif message["type"] == "message":
                for backlog in self._listeners.get(message["channel"], ()):
                    backlog.put(message["data"])

    def _listening(self, uri: str) -> tuple[Redis, PubSub]:
        node: Redis = Redis.from_url(uri, max_connections=1, **connection_options(self._ca_file, retries=1))
        return node, node.pubsub(ignore_subscribe_messages=False)

    async def _come_back(self) -> None:
        """To the same server; in a cluster to any node, for each hears of every message, and this one may be gone."""
        addresses = [*self._client.addresses()]
        if len(addresses) == 1:
            with suppress(RedisError, OSError):
                await self._pubsub.connect()  # type: ignore[no-untyped-call]  # the client's
            return
        random.shuffle(addresses)
        for address in addresses:
            with suppress(RedisError, OSError):  # it is being left
                await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # the client's
            await self._node.aclose()
            self._node, self._pubsub = self._listening(address)
            with suppress(RedisError, OSError):
                if self._listeners:
                    await self._pubsub.subscribe(*self._listeners)
                else:
                    await self._pubsub.connect()  # type: ignore[no-untyped-call]  # the client's
                return

    async def _ask_whether_it_lives(self, asked: bool) -> bool:
        """Raises RedisError where it has been asked already, and has not said a word since."""
        if asked:
            await self._pubsub.connection.disconnect()  # type: ignore[attr-defined]  # it has asked by it
            raise BrokenError("no answer in time")
        await self._pubsub.ping()
        return True


async def _publish(client: Client, name: str, message: str) -> None:
    """In a cluster any node will do, and always the same one, so that messages come in their order: the one that has
    the keys of this slot, and while it is away the first of the others."""
    if not isinstance(client, RedisCluster):
        await client.publish(name, message)
        return
    own = client.get_node_from_key(name)
    nodes = sorted(client.get_nodes(), key=lambda node: (node != own, node.name))
    for node in nodes[:-1]:
        with suppress(BrokenError, RedisTimeoutError):
            await client.execute_command("PUBLISH", name, message, target_nodes=node)
            return
    await client.execute_command("PUBLISH", name, message, target_nodes=nodes[-1])


def _name(channel: str) -> str:
    return name_of("channel", None, channel)
