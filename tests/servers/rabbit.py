"""A private RabbitMQ for tests: Debian's, one node, on free ports, without its plugins."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import quote

import psutil

from tests.servers.authority import new_authority
from tests.servers.freezing import frozen
from tests.servers.missing import missing
from tests.servers.ports import free_port, listens

INSTALL = "apt-get install rabbitmq-server"
BINARIES = Path("/usr/lib/rabbitmq/bin")
START_S = 90
MEMORY = "1GB"


class NoRabbitError(Exception):
    """It can't be started here. The text says what to install."""


@dataclass
class Broker:
    """One node, which a test may stop, kill, freeze and start again; its folder outlives that."""

    folder: Path
    password: str = field(default="guest", repr=False)
    port: int = field(default_factory=free_port)
    _tls_port: int = field(default_factory=free_port)
    _dist_port: int = field(default_factory=free_port)
    _epmd_port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"amqp://guest:{quote(self.password, safe='')}@127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        return self.url.replace("amqp://", "amqps://").replace(f":{self.port}/", f":{self._tls_port}/")

    @property
    def authority(self) -> Path:
        """What a client of `tls_url` has to trust."""
        return self.folder / "authority.pem"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        if not (BINARIES / "rabbitmq-server").exists():
            raise NoRabbitError(f"there is no rabbitmq-server: {INSTALL}")
        self.folder.mkdir(exist_ok=True, parents=True)
        if not self.authority.exists():
            ours = new_authority("broker")
            ours.write(self.authority)
            ours.write_server(self.folder / "server.pem")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            f"listeners.ssl.default = 127.0.0.1:{self._tls_port}\n"
            f"ssl_options.certfile = {self.folder / 'server.pem'}\nssl_options.keyfile = {self.folder / 'server.pem'}\n"
            "log.console = false\nlog.file.level = warning\nvm_memory_high_watermark.absolute = {MEMORY}\n"
            f"disk_free_limit.absolute = 10MB\ndefault_pass = {self.password}\n"
        )
        (self.folder / "plugins").write_text("[].\n")
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [BINARIES / "rabbitmq-server"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that all of it can be killed at once
            )
        until = time.monotonic() + START_S
        while not listens(self.port):  # which a node does when all else is done
            if self._process.poll() is not None or time.monotonic() > until:
                said = (self.folder / "output").read_text(errors="replace")[-500:]
                self.kill()
                raise NoRabbitError(f"rabbitmq-server did not start: {said}; {INSTALL}")
            time.sleep(0.1)

    def stop(self) -> None:
        """As an init system does, with its queues in order."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            self._process.wait(timeout=60)
            self._process = None

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._signal(signal.SIGKILL)
            self._process.wait(timeout=30)
            self._process = None

    def remove(self) -> None:
        """Killed, its name server too."""
        self.kill()
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["epmd", "-port", str(self._epmd_port), "-kill"], capture_output=True, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        node = psutil.Process(self.pid)
        with frozen([each.pid for each in (node, *node.children(recursive=True))]):
            yield

    @contextmanager
    def short_of_memory(self) -> Iterator[None]:
        """It takes no messages, and says so to those that send one."""
        self._limit_memory("1MB")
        try:
            yield
        finally:
            self._limit_memory(MEMORY)

    def _limit_memory(self, limit: str) -> None:
        asked = ("-n", self._node, "set_vm_memory_high_watermark", "absolute", limit)
        subprocess.run(
            [BINARIES / "rabbitmqctl", *asked], env=self._environment(), check=True, capture_output=True, timeout=60
        )

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    @property
    def _node(self) -> str:
        return f"test{self.port}@localhost"

    def _environment(self) -> Mapping[str, str]:
        folder = str(self.folder)
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": folder,
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }


@contextmanager
def running_rabbit(password: str = "guest") -> Iterator[Broker]:
    """A broker of the test's own."""
    broker = Broker(Path(tempfile.mkdtemp(prefix="ai-middleware-rabbit-")), password)
    try:
        broker.start()
        yield broker
    finally:
        broker.remove()


@cache
def shared_rabbit() -> Broker:
    """This process's own broker."""
    broker = Broker(Path(tempfile.mkdtemp(prefix="ai-middleware-rabbit-")))
    atexit.register(broker.remove)
    broker.start()
    return broker


def rabbit_or_skip() -> Broker:
    """It, or the test is skipped: with CI=true it fails."""
    try:
        return shared_rabbit()
    except NoRabbitError as error:
        missing(error)
