"""A private Redis for tests: the `redis-server` of PATH, alone or as a cluster of three, on free ports."""

from __future__ import annotations

import atexit
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import redis

from .freezing import frozen
from .missing import missing
from .ports import free_port, listens

INSTALL = "apt-get install redis-server"


class NoRedisError(Exception):
    """It can't be started here. The text says what to install."""


@dataclass(frozen=True)
class Certificates:
    """`server`: a key and a certificate; `authority`: whose certificate it is. Both as PEM."""

    server: Path
    authority: Path


@dataclass
class Node:
    """One `redis-server`, which a test may stop, kill, freeze and start again. With `tls` it speaks nothing else."""

    folder: Path
    port: int
    options: Sequence[str] = ()
    tls: Certificates | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        return f"{'rediss' if self.tls else 'redis'}://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise NoRedisError(f"there is no redis-server: {INSTALL}")
        self.folder.mkdir(exist_ok=True)
        basics = ("--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no")
        command = [binary, *basics, *self._listening(), *self.options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                raise NoRedisError(f"redis-server did not start; {INSTALL}")
            time.sleep(0.02)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        assert self.process is not None
        with frozen([self.process.pid]):
            yield

    def _listening(self) -> Sequence[str]:
        if self.tls is None:
            return "--port", str(self.port)
        files = ("--tls-cert-file", str(self.tls.server), "--tls-key-file", str(self.tls.server))
        trust = ("--tls-ca-cert-file", str(self.tls.authority), "--tls-auth-clients", "no")
        return "--port", "0", "--tls-port", str(self.port), *files, *trust

    def _end(self, how: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(timeout=30)
            self.process = None


@contextmanager
def running_redis(*options: str, tls: Certificates | None = None) -> Iterator[Node]:
    """A server of the test's own."""
    with tempfile.TemporaryDirectory(prefix="ai-middleware-redis-") as folder:
        node = Node(Path(folder), free_port(), options, tls)
        node.start()
        try:
            yield node
        finally:
            node.kill()


@contextmanager
def running_cluster(*, tls: Certificates | None = None) -> Iterator[Sequence[Node]]:
    """Three masters with all slots between them. With `tls` they speak it to each other too."""
    own = () if tls is None else ("--tls-cluster", "yes")
    with tempfile.TemporaryDirectory(prefix="ai-middleware-redis-") as folder, ExitStack() as stack:
        nodes = []
        for number in range(3):
            port = free_port()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(free_port()))
            node = Node(Path(folder) / str(number), port, (*options, *own), tls)
            node.start()
            stack.callback(node.kill)
            nodes.append(node)
        addresses = [f"127.0.0.1:{node.port}" for node in nodes]
        trust = () if tls is None else ("--tls", "--cacert", str(tls.authority))
        subprocess.run(
            ["redis-cli", *trust, "--cluster", "create", *addresses, "--cluster-yes"],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )
        for node in nodes:
            _settled(node)
        yield nodes


@cache
def shared_redis() -> Node:
    """This process's own server, or the test is skipped: with CI=true it fails."""
    folder = Path(tempfile.mkdtemp(prefix="ai-middleware-redis-"))
    node = Node(folder, free_port())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(node.kill)
    node.start()
    return node


@cache
def _shared_cluster() -> Sequence[Node]:
    stack = ExitStack()
    nodes = stack.enter_context(running_cluster())
    atexit.register(stack.close)
    return nodes


def cluster_or_skip() -> Sequence[Node]:
    """This process's own cluster, as `redis_or_skip`."""
    redis_or_skip()
    return _shared_cluster()


def redis_or_skip() -> Node:
    try:
        return shared_redis()
    except NoRedisError as error:
        missing(error)


def _settled(node: Node) -> None:
    trust = {} if node.tls is None else {"ssl_ca_certs": str(node.tls.authority)}
    with redis.Redis.from_url(node.uri, decode_responses=True, **trust) as client:
        until = time.monotonic() + 30
        while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
            assert time.monotonic() < until
            time.sleep(0.05)
