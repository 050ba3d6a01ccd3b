"""A site as in production: two server processes before one MongoDB, one PostgreSQL, one Redis and one RabbitMQ, each of
which can be stopped, killed, frozen, slowed and cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

import httpx

from tests.servers.mongo import Mongo, running_mongo
from tests.servers.mongo import migrated_database as migrated_documents
from tests.servers.postgres import Postgres, new_database, running_postgres
from tests.servers.proxy import Proxy, proxy_beside
from tests.servers.rabbit import running_rabbit
from tests.servers.redis import running_redis
from tests.servers.together import entered

from .processes import Server, Vendor, running_server, server_environment

DOWN_S = 1.0
"""For how long a server that is stopped or killed stays away at least."""
FROZEN_S = 5.0
"""Longer than a commit waits for the ledger's store."""


class Process(Protocol):
    """What each of the servers' helpers offers."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def frozen(self) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class MongoProcess:
    """A replica set of one, which is back when it has a primary again."""

    mongo: Mongo

    def start(self) -> None:
        self.mongo.restart(self.mongo.nodes[0])

    def stop(self) -> None:
        self.mongo.nodes[0].stop()

    def kill(self) -> None:
        self.mongo.nodes[0].kill()

    def frozen(self) -> AbstractContextManager[None]:
        return self.mongo.nodes[0].frozen()


@dataclass(frozen=True)
class PostgresProcess:
    """Starts with its arguments' defaults."""

    postgres: Postgres

    def start(self) -> None:
        self.postgres.start()

    def stop(self) -> None:
        self.postgres.stop()

    def kill(self) -> None:
        self.postgres.kill()

    def frozen(self) -> AbstractContextManager[None]:
        return self.postgres.frozen()


@dataclass(frozen=True)
class Site:
    """`ways` lead to all of them; to MongoDB too, whose client goes by the addresses that its members are known by."""

    servers: Sequence[Server]
    parts: Mapping[str, Process]
    ways: Mapping[str, Proxy]
    ledger_url: str
    environments: Sequence[Mapping[str, str]]


@contextmanager
def running_site(folder: Path, vendor: Vendor, *, processes: int = 2, **more: str) -> Iterator[Site]:
    """Skipped where one of them can't be had: with CI=true it fails."""
    with ExitStack() as stack:
        mongo, postgres, redis, broker = entered(
            stack, running_mongo(), running_postgres(), running_redis(), running_rabbit()
        )
        documents = asyncio.run(migrated_documents(mongo))
        ledger = postgres.url(asyncio.run(new_database(postgres)))
        ways = {
            "MongoDB": stack.enter_context(proxy_beside(mongo.nodes[0].port)),
            "TimescaleDB": stack.enter_context(proxy_beside(urlsplit(ledger).port or 5432)),
            "Redis": stack.enter_context(proxy_beside(redis.port)),
            "RabbitMQ": stack.enter_context(proxy_beside(broker.port)),
        }
        mongo.lead_through(ways["MongoDB"].port)
        variables = {
            "MONGODB_CONNECTION_URI": through(documents, ways["MongoDB"]),
            "MONGODB_TIMEOUT_S": "2",
            "TIMESCALE_SERVICE_URL": through(ledger, ways["TimescaleDB"]),
            "TIMESCALE_TIMEOUT_S": "2",
            "REDIS_URI": through(redis.uri, ways["Redis"]),
            "QUEUE_CONNECTIONURL": through(broker.url, ways["RabbitMQ"]),
            **more,
        }
        common = server_environment(folder / "0", vendor, **variables)
        environments = [{**common, "DATA_DIR": str(folder / str(number))} for number in range(processes)]
        servers = entered(stack, *(running_server(environment) for environment in environments))
        parts: Mapping[str, Process] = {
            "MongoDB": MongoProcess(mongo),
            "TimescaleDB": PostgresProcess(postgres),
            "Redis": redis,
            "RabbitMQ": broker,
        }
        site = Site(servers, parts, ways, ledger, environments)
        for server in servers:
            ready(server)
        yield site


def through(url: str, way: Proxy) -> str:
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{way.port}".removeprefix("@")))


def readiness(server: Server) -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/readyz", timeout=30)
    return answer.status_code, answer.text


def ready(server: Server) -> None:
    """Returns when nothing is missing, nothing spared."""
    until = time.monotonic() + 60
    while (found := readiness(server)) != (200, "ready\n"):
        assert time.monotonic() < until, found
        time.sleep(0.1)


def stop(site: Site, *names: str) -> None:
    _down([site.parts[name].stop for name in names], [site.parts[name].start for name in names])


def kill(site: Site, *names: str) -> None:
    _down([site.parts[name].kill for name in names], [site.parts[name].start for name in names])


def freeze(site: Site, *names: str) -> None:
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(site.parts[name].frozen())
        time.sleep(FROZEN_S)


def slow(site: Site, *names: str) -> None:
    """Each chunk comes late, and now and then every connection is cut."""
    ways = [site.ways[name] for name in names]
    for way in ways:
        way.delay_s = 0.1
    try:
        for _ in range(5):
            time.sleep(0.6)
            for way in ways:
                way.cut_now()
    finally:
        for way in ways:
            way.delay_s = 0.0


def _down(ends: Sequence[Callable[[], None]], beginnings: Sequence[Callable[[], None]]) -> None:
    for end in ends:
        end()
    time.sleep(DOWN_S)
    for begin in beginnings:
        begin()
