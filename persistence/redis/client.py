"""Connections to Redis, one server or a cluster: bounded in number and in time.

Sources: https://redis.io/docs/latest/commands/evalsha/ (NOSCRIPT: a server that was restarted knows no script),
https://redis.io/docs/latest/commands/cluster-keyslot/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as BrokenError

from ..ports import StoreUnavailableError
from .address import addresses_of

TIMEOUT_S = 2.0  # for one answer; a call may take twice as long
_CALLS = 50
_CONNECTIONS = 2 * _CALLS  # a cluster's client needs some to look around while calls hold theirs

T = TypeVar("T")
Client = Redis | RedisCluster


class RedisRefusedError(StoreUnavailableError):
    """It was reached, and it is the settings that keep us from it. Waiting mends nothing."""


class Script:
    """Runs on the server in one step. All its keys are of one slot."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisClient:
    """What is asked of one server, or of one cluster: which of the two, the first call that reaches it finds out.

    Every method raises StoreUnavailableError (RedisRefusedError for a wrong password, or for what its user may not do)
    within twice TIMEOUT_S, the wait for one of _CALLS turns included, of which there are fewer where the address has a
    `max_connections` of its own.
    """

    def __init__(self, uri: str, *, ca_file: Path | None) -> None:
        """`uri` may name several nodes of a cluster. Raises ValueError for an address, or options of it, that are
        none."""
        self._options = connection_options(ca_file)
        self._nodes = {address: _node(address, self._options) for address in addresses_of(uri)}
        connections = min(node.connection_pool.max_connections for node in self._nodes.values())
        self._turns = asyncio.Semaphore(max(1, min(connections // 2, _CALLS)))
        self._found: Client | None = None
        self._finding: asyncio.Task[Client] | None = None
        self._asking: set[asyncio.Task[Any]] = set()

    async def ask(self, call: Callable[[Client], Awaitable[T]], *, again: bool = True) -> T:
        """`again`: where the connection breaks, once more, for what may be done twice."""
        return await bounded(self._ask(call, again))

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | int], *, again: bool = True
    ) -> Any:
        async def call(client: Client) -> Any:
            try:
                return await client.evalsha(script.sha, len(keys), *keys, *arguments)
            except NoScriptError:
                return await client.eval(script.text, len(keys), *keys, *arguments)

        return await self.ask(call, again=again)

    async def slots(self, names: Sequence[str]) -> Sequence[int]:
        """Of each key. One server has one for all."""
        client = await bounded(self._client())
        return [client.keyslot(name) if isinstance(client, RedisCluster) else 0 for name in names]

    async def find(self) -> None:
        """One server or a cluster, unless that is known."""
        await bounded(self._client())

    def addresses(self) -> Sequence[str]:
        """Of a cluster's nodes as they are known now, else those that were named."""
        if not isinstance(self._found, RedisCluster):
            return [*self._nodes]
        parts = urlsplit(next(iter(self._nodes)))
        credentials = parts.netloc.rpartition("@")[:2]
        return [
            urlunsplit(parts._replace(netloc="".join((*credentials, _written(node.host, node.port)))))
            for node in self._found.get_nodes()
        ]

    async def close(self) -> None:
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.wait([self._finding])
        if self._asking:
            _, late = await asyncio.wait(self._asking, timeout=TIMEOUT_S)
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if isinstance(self._found, RedisCluster):
            await self._found.aclose()
        for node in self._nodes.values():
            await node.aclose()

    async def _ask(self, call: Callable[[Client], Awaitable[T]], again: bool) -> T:
        async with self._turns:
            client = await self._client()
            try:
                return await call(client)
            except BrokenError:
                # The pool takes a connection that its server has closed for a good one, so each would fail in turn.
                for node in self._nodes.values():
                    await node.connection_pool.disconnect(inuse_connections=False)
                if not again:
                    raise
                return await call(client)

    async def _client(self) -> Client:
        """All that ask at once wait for one and the same finding out."""
        if self._found is not None:
            return self._found
        if self._finding is None:
            self._finding = asyncio.create_task(self._find(), name="redis-find")
            self._finding.add_done_callback(self._find_ended)
        return await asyncio.shield(self._finding)

    def _find_ended(self, finding: asyncio.Task[Client]) -> None:
        self._finding = None
        if not finding.cancelled() and finding.exception() is None:
            self._found = finding.result()

    async def _find(self) -> Client:
        async with asyncio.timeout(2 * TIMEOUT_S):  # whoever waits for it may be gone
            return await self._found_out()

    async def _found_out(self) -> Client:
        address, about = await self._first_answer()
        if not about.get("cluster_enabled"):
            if len(self._nodes) > 1:
                raise RedisRefusedError("Redis: several addresses are a cluster's, and this one is none: name one")
            return self._nodes[address]
        cluster: RedisCluster = RedisCluster.from_url(address, max_connections=_CONNECTIONS, **self._options)
        try:
            await cluster.initialize()
        except BaseException:  # cancelled too: its connections are closed, and it is told
            await cluster.aclose()
            raise
        return cluster

    async def _first_answer(self) -> tuple[str, Any]:
        """Of those that were named, which are asked at once: some of them may be gone. The others are waited for by
        `close`: a call that is cancelled while it connects leaves its connection open."""
        asking: dict[asyncio.Task[Any], str] = {
            asyncio.create_task(_about_cluster(node), name="redis-find"): address
            for address, node in self._nodes.items()
        }
        for each in asking:
            self._asking.add(each)
            each.add_done_callback(self._asked)
        waiting = set(asking)
        while True:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            answered = [each for each in done if each.exception() is None]
            for each in answered or (() if waiting else done):
                return asking[each], each.result()

    def _asked(self, asking: asyncio.Task[Any]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()  # seen: another may have answered


async def _about_cluster(node: Redis) -> Any:
    """Raises RedisRefusedError where the server takes the connection and not its database: a cluster has the first
    alone. Errors that pass have types of their own."""
    try:
        return await node.info("cluster")
    except ResponseError as error:
        if type(error) is ResponseError:
            raise RedisRefusedError(f"Redis: it refuses: {error}") from None
        raise


def _written(host: str, port: int | str) -> str:
    """As in an address, where IPv6's stand in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _node(address: str, options: Mapping[str, Any]) -> Redis:
    """What is wrong in its options would be said when it first connects, and as a defect of ours."""
    try:
        node: Redis = Redis.from_url(address, max_connections=_CONNECTIONS, **options)
        node.connection_pool.connection_class(**node.connection_pool.connection_kwargs)
    except (TypeError, ValueError, RedisError):  # their texts may quote a part of the password
        raise ValueError("the address has an option that is none, or has a wrong value") from None
    return node


def connection_options(ca_file: Path | None, *, retries: int = 0) -> dict[str, Any]:
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "health_check_interval": 15,
        "retry": Retry(NoBackoff(), retries),
    }
    return {**options, "ssl_ca_certs": str(ca_file)} if ca_file is not None else options


async def bounded(call: Awaitable[T]) -> T:
    """Raises StoreUnavailableError."""
    try:
        async with asyncio.timeout(2 * TIMEOUT_S):
            return await call
    except (AuthenticationError, NoPermissionError) as error:
        raise RedisRefusedError(f"Redis: it refuses: {error}") from None
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailableError(f"Redis: {str(error) or type(error).__name__}") from error
