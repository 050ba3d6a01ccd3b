"""TimescaleDB's community edition for tests: compiled to WebAssembly, run by Node, one session (see `pglite/`)."""

from __future__ import annotations

import atexit
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asyncpg

from persistence.migrations.timescale import migrate
from persistence.timescale.upkeep import VIEWS

from .postgres import NoPostgresError, or_skip

_FOLDER = Path(__file__).with_name("pglite")
_MISSING = "TimescaleDB's community edition needs Node and npm: `make test` installs it into tests/servers/pglite"


@dataclass
class Community:
    process: subprocess.Popen[str]
    port: int
    is_migrated: bool = False

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def close(self) -> None:
        if self.process.stdin is not None and self.process.stdout is not None:
            self.process.stdin.close()
            self.process.wait(timeout=30)
            self.process.stdout.close()


@contextmanager
def running_community() -> Iterator[Community]:
    """A server of the test's own, empty but for the extension."""
    server = _started()
    try:
        yield server
    finally:
        server.close()


@asynccontextmanager
async def community_database() -> AsyncIterator[str]:
    """The address of this process's own server, with the schema and nothing in it: to start one takes seconds."""
    server = _shared()
    if not server.is_migrated:
        await migrate(server.url)
        server.is_migrated = True
    connection = await asyncpg.connect(server.url, timeout=10)
    try:
        tables = [*VIEWS.values(), "ledger_entries", "ledger_parked", "usage_late"]
        await connection.execute(f"TRUNCATE {', '.join(tables)}")
    finally:
        await connection.close(timeout=10)
    yield server.url


@cache
def _shared() -> Community:
    server = _started()
    atexit.register(server.close)
    return server


def _started() -> Community:
    node = or_skip(_node)
    process = subprocess.Popen(
        [node, "bridge.mjs"], cwd=_FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return Community(process, int(process.stdout.readline()))


def _node() -> str:
    node = shutil.which("node")
    if node is None or not (_FOLDER / "node_modules").exists():
        raise NoPostgresError(_MISSING)
    return node
