"""A private PostgreSQL for tests: Debian's `postgresql`, on a free port, in a folder of its own."""

from __future__ import annotations

import atexit
import fcntl
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from uuid import uuid4

import asyncpg
import psutil
import pytest

from persistence.migrations.timescale import migrate

PASSWORD = "not-for-any-log"
INSTALL = "apt-get install postgresql"
_FAST = "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 -c shared_buffers=64MB"


class NoPostgresError(Exception):
    """It can't be started here. The text says what to install."""


@dataclass
class Postgres:
    """One server, which a test may stop, kill, freeze and start again."""

    folder: Path
    port: int
    binaries: Path = field(repr=False)
    has_template: bool = False

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    @property
    def pid(self) -> int:
        return int((self.folder / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        options = f"{_FAST} -p {self.port}"
        self._run("pg_ctl", "start", "-w", "-t", "60", "-l", str(self.folder / "server.log"), "-o", options)

    def stop(self) -> None:
        """As its operator does: connections are cut, what is committed is written."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast")

    def kill(self) -> None:
        """`kill -9` of the server and of all that it has started."""
        pid = self.pid
        processes = [pid, *_children(pid)]
        for each in processes:
            os.kill(each, signal.SIGKILL)
        for each in processes:
            _gone(each)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def close(self) -> None:
        with suppress(NoPostgresError):  # a test may have left it dead
            self._run("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        processes = [self.pid, *_children(self.pid)]
        for each in processes:
            os.kill(each, signal.SIGSTOP)
        try:
            yield
        finally:
            for each in processes:
                os.kill(each, signal.SIGCONT)

    def _run(self, program: str, *arguments: str) -> None:
        _run(self.binaries / program, "-D", str(self.folder), *arguments)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of the test's own; see `shared_postgres`."""
    server = _new_postgres()
    try:
        yield server
    finally:
        server.close()


@cache
def shared_postgres() -> Postgres:
    """The server of this test run: the first process that asks starts it, the last one that ends stops it. Where
    there can be none, the test is skipped and pytest's summary says what to install; with CI=true it fails."""
    run = Path(tempfile.gettempdir()) / f"ai-middleware-run-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    run.mkdir(exist_ok=True)
    told = run / "postgres"
    with _users(run) as users:
        if told.exists():
            folder, port = told.read_text().split()
            server = Postgres(Path(folder), int(port), _binaries())
        else:
            server = _new_postgres()
            told.write_text(f"{server.folder} {server.port}")
        users.add(os.getpid())
    atexit.register(_leave, run, server)
    return server


@asynccontextmanager
async def migrated_database(server: Postgres) -> AsyncIterator[str]:
    """The address of a database of the test's own, with the schema."""
    name = f"test_{uuid4().hex}"
    await _make_template(server)
    await _order(server, f"CREATE DATABASE {name} TEMPLATE migrated")
    try:
        yield server.url(name)
    finally:
        await _order(server, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def empty_database(server: Postgres) -> AsyncIterator[str]:
    """The same without the schema."""
    name = f"test_{uuid4().hex}"
    await _order(server, f"CREATE DATABASE {name}")
    try:
        yield server.url(name)
    finally:
        await _order(server, f"DROP DATABASE {name} WITH (FORCE)")


async def _make_template(server: Postgres) -> None:
    if server.has_template:
        return
    with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):  # another process was first
        await _order(server, "CREATE DATABASE migrated")
    await migrate(server.url("migrated"))
    server.has_template = True


async def _order(server: Postgres, order: str) -> None:
    connection = await asyncpg.connect(server.url(), timeout=10)
    try:
        await connection.execute(order)
    finally:
        await connection.close(timeout=10)


def _new_postgres() -> Postgres:
    binaries = _binaries_or_skip()
    folder = Path(tempfile.mkdtemp(prefix="ai-middleware-postgres-", dir=_memory()))
    server = Postgres(folder, _free_port(), binaries)
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        password = folder.with_suffix(".password")
        password.write_text(PASSWORD)
        password.chmod(0o644)
        how = ("-U", "postgres", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync", "--encoding=UTF8")
        server._run("initdb", *how, "--locale=C.UTF-8")
        password.unlink()
        server.start()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return server


def _binaries_or_skip() -> Path:
    try:
        return _binaries()
    except NoPostgresError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(f"NOT TESTED: {error}")


@contextmanager
def _users(run: Path) -> Iterator[set[int]]:
    """The processes of this run that use the server and still live; nobody else changes them meanwhile."""
    with (run / "users").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        users = {int(line) for line in file if psutil.pid_exists(int(line))}
        yield users
        file.truncate(0)
        file.writelines(f"{user}\n" for user in users)


def _leave(run: Path, server: Postgres) -> None:
    with _users(run) as users:
        users.discard(os.getpid())
        if users:
            return
        server.close()
        (run / "postgres").unlink()
    shutil.rmtree(run)


def _binaries() -> Path:
    places = [Path(place) for place in os.environ.get("PATH", "").split(":") if place]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for place in places:
        if (place / "initdb").exists():
            return (place / "initdb").resolve().parent
    raise NoPostgresError(f"PostgreSQL is not installed: {INSTALL}")


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _run(program: Path, *arguments: str) -> None:
    """As user postgres where this is root: it refuses root."""
    user = "postgres" if os.geteuid() == 0 else None
    done = subprocess.run(
        [program, *arguments],
        user=user,
        group=user,
        extra_groups=[] if user else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if program.name == "initdb" else subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise NoPostgresError(f"{program.name} failed: {(done.stderr or b'').decode().strip()[-500:]}")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return
