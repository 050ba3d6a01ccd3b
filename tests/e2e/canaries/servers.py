"""All the servers of a site, each behind a password that is a canary, and what each of them keeps."""

from __future__ import annotations

import asyncio
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aio_pika
import asyncpg
import bson
import redis as client_of_redis
from pymongo.errors import OperationFailure

from tests.servers.mongo import Mongo, running_mongo
from tests.servers.postgres import PASSWORD, Postgres, rows, running_postgres
from tests.servers.rabbit import Broker, running_rabbit
from tests.servers.redis import Node, running_redis
from tests.servers.s3 import S3Server, running_s3
from tests.servers.together import entered

from .canaries import Canary, Group, Kind, Sink, canary

QUEUE = "canaries"
_TABLES = """SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'm')
    AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)"""


@dataclass
class Servers:
    """`heard` is all that Redis was told from the first moment on."""

    mongo: Mongo
    postgres: Postgres
    redis: Node
    broker: Broker
    bucket: S3Server
    passwords: Mapping[str, Canary]
    heard: bytearray = field(default_factory=bytearray, repr=False)

    @property
    def canaries(self) -> list[Canary]:
        return [*self.passwords.values(), Canary("the password of PostgreSQL's own user", Kind.SECRET, PASSWORD)]

    @property
    def variables(self) -> dict[str, str]:
        return {
            "MONGODB_CONNECTION_URI": self.mongo.url("app"),
            "MONGODB_TIMEOUT_S": "2",
            "TIMESCALE_SERVICE_URL": self.ledger,
            "TIMESCALE_TIMEOUT_S": "2",
            "REDIS_URI": f"redis://:{self.encoded('Redis')}@127.0.0.1:{self.redis.port}/0",
            "QUEUE_CONNECTIONURL": self.broker.url,
            "QUEUE_NAME": QUEUE,
            "OBJECT_STORE_URL": f"{self.bucket.url}/files",
            **{name.upper(): value for name, value in self.bucket.options(secret=self.bucket.secret).items()},
        }

    @property
    def ledger(self) -> str:
        return f"postgresql://app:{self.encoded('PostgreSQL')}@127.0.0.1:{self.postgres.port}/app?sslmode=disable"

    async def messages(self) -> list[Sink]:
        """What waits in the queue now."""
        return await messages_of(self.broker.url)

    def encoded(self, server: str) -> str:
        return quote(self.passwords[server].value, safe="")

    def plant(self, text: str) -> None:
        """In each of them."""
        with self.mongo.client() as administrator:
            administrator["app"]["planted"].insert_one({"text": text})
        asyncio.run(rows(self.ledger, f"CREATE TABLE planted AS SELECT '{text}' AS text"))
        with client_of_redis.Redis(port=self.redis.port, password=self.passwords["Redis"].value) as administrator:
            administrator.set("planted", text)
        asyncio.run(_send(self.broker.url, text))
        (self.bucket.files / "planted").write_text(text)

    def kept(self) -> Iterator[Sink]:
        """What each of them holds, and has held, as far as its files tell."""
        yield from _documents(self.mongo)
        yield from asyncio.run(_tables(self.ledger))
        yield from _files(Group.LEDGER, self.postgres.folder / "pg_wal", self.postgres.folder / "server.log")
        yield from _values(self.redis.port, self.passwords["Redis"].value)
        yield Sink(Group.SHARED, "what Redis was told", bytes(self.heard))
        yield from asyncio.run(self.messages())
        yield from _files(Group.QUEUE, self.broker.folder / "data", self.broker.folder / "log")
        yield from _files(Group.BUCKET, self.bucket.folder)


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Skipped where one of them can't be had: with CI=true it fails."""
    passwords = {
        name: canary(f"the password of {name}") for name in ("MongoDB", "PostgreSQL", "Redis", "RabbitMQ", "S3")
    }
    with ExitStack() as stack:
        mongo, postgres, redis, broker, bucket = entered(
            stack,
            _guarded_mongo(passwords["MongoDB"].value),
            running_postgres(),
            running_redis(),
            running_rabbit(passwords["RabbitMQ"].value),
            running_s3(secret=passwords["S3"].value),
        )
        asyncio.run(_give_to_app(postgres, passwords["PostgreSQL"].value))
        servers = Servers(mongo, postgres, redis, broker, bucket, passwords)
        with client_of_redis.Redis(port=redis.port) as administrator:
            administrator.config_set("requirepass", passwords["Redis"].value)
        with _heard(redis.port, passwords["Redis"].value, servers.heard):
            yield servers


@contextmanager
def _guarded_mongo(password: str) -> Iterator[Mongo]:
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder) / "key"
        key.write_text(secrets.token_hex(64))
        key.chmod(0o600)
        with running_mongo(options=[f"--keyFile={key}"]) as mongo:
            with mongo.client(mongo.nodes[0]) as first:  # the first user is made from the same host
                first.admin.command("createUser", "app", pwd=password, roles=["root"])
            yield replace(mongo, credentials=f"app:{quote(password, safe='')}@")


async def _give_to_app(server: Postgres, password: str) -> None:
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{password}'")
        await connection.execute("CREATE DATABASE app OWNER app")
    finally:
        await connection.close()


@contextmanager
def _heard(port: int, password: str, heard: bytearray) -> Iterator[None]:
    """Redis' MONITOR: every command of every client with its arguments, messages too; passwords it leaves out."""
    with socket.create_connection(("127.0.0.1", port)) as listener:
        listener.sendall(f"*2\r\n$4\r\nAUTH\r\n${len(password)}\r\n{password}\r\n*1\r\n$7\r\nMONITOR\r\n".encode())

        def listen() -> None:
            with suppress(OSError):
                while chunk := listener.recv(65536):
                    heard.extend(chunk)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _documents(mongo: Mongo) -> Iterator[Sink]:
    """Every collection, and the log of all writes."""
    with mongo.client() as administrator:
        for name in administrator.list_database_names():
            for collection in administrator[name].list_collection_names():
                with suppress(OperationFailure):  # two of its own it shows to nobody
                    found = b"\n".join(bson.encode(each) for each in administrator[name][collection].find())
                    yield Sink(Group.DOCUMENTS, f"MongoDB {name}.{collection}", found)


async def _tables(url: str) -> list[Sink]:
    connection = await asyncpg.connect(url)
    try:
        tables = []
        for (name,) in await connection.fetch(_TABLES):
            found = await connection.fetch(f"SELECT t::text FROM {name} AS t")
            tables.append(Sink(Group.LEDGER, f"PostgreSQL {name}", "\n".join(row[0] for row in found).encode()))
        return tables
    finally:
        await connection.close()


def _values(port: int, password: str) -> Iterator[Sink]:
    with client_of_redis.Redis(port=port, password=password) as administrator:
        for key in administrator.scan_iter():
            kind: bytes = administrator.type(key)
            value = _READERS[kind](administrator, key)
            yield Sink(Group.SHARED, f"Redis {key!r}", key + b" " + repr(value).encode())


_READERS: Mapping[bytes, Any] = {
    b"string": lambda redis, key: redis.get(key),
    b"hash": lambda redis, key: redis.hgetall(key),
    b"list": lambda redis, key: redis.lrange(key, 0, -1),
    b"set": lambda redis, key: redis.smembers(key),
    b"zset": lambda redis, key: redis.zrange(key, 0, -1),
    b"stream": lambda redis, key: redis.xrange(key),
}


async def messages_of(url: str) -> list[Sink]:
    """They are put back."""
    connection = await aio_pika.connect(url, timeout=10)
    async with connection, await connection.channel() as channel:
        queue = await channel.get_queue(QUEUE, ensure=False)
        taken = []
        while (message := await queue.get(fail=False, timeout=10)) is not None:
            taken.append(message)
        for each in taken:
            await each.reject(requeue=True)
    return [Sink(Group.QUEUE, "a message", repr(each.headers).encode() + each.body) for each in taken]


async def _send(url: str, text: str) -> None:
    connection = await aio_pika.connect(url, timeout=10)
    async with connection, await connection.channel() as channel:
        await channel.default_exchange.publish(aio_pika.Message(text.encode()), QUEUE, timeout=10)


def _files(group: Group, *places: Path) -> Iterator[Sink]:
    for place in places:
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            with suppress(FileNotFoundError):  # gone meanwhile
                if path.is_file():
                    yield Sink(group, str(path), path.read_bytes())
