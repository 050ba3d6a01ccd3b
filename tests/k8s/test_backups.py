"""Backups of the real databases, and what is put back from them."""

from __future__ import annotations

import asyncio
import gzip
import os
import resource
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import asyncpg
import pymongo
import pyrage
import pytest
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from gateway import backup_commands
from gateway.backups import BackupError, Backups, open_backups
from gateway.settings import SettingsError, load_settings
from persistence.migrations.mongo import migrate as migrate_documents
from persistence.migrations.timescale import migrate as migrate_ledger
from persistence.mongo.archive import ArchiveError, read_archive, write_archive
from persistence.mongo.client import SchemaVersionError
from persistence.ports import StoreUnavailableError
from tests.e2e.processes import post, running_server, server_environment
from tests.e2e.test_cli import command
from tests.servers.mongo import empty_database as empty_documents
from tests.servers.mongo import shared_mongo
from tests.servers.postgres import PASSWORD, Kind, Postgres, empty_database, rows, running_postgres

from .test_data_tier import SCRIPTS, programs

COMPLETE = 'mutation { complete(input: {model: "scripted/echo", messages: [{role: USER, content: "hi"}]}) { id } }'
CONFIG = 'mutation { createConfig(input: {slug: "%s", draft: {model: "scripted/echo"}}) { id } }'
LARGE = 16 * 1024 * 1024 - 100
"""A document has 16 MiB at most."""
READ = "{ configs(first: 10) { nodes { slug draft { model } } } auditLog(first: 10) { nodes { action subjectId } } }"


@dataclass
class Keys:
    """A public key for the settings, and the file of the private one, as `age-keygen` writes it."""

    recipient: str
    private: str
    file: Path


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    identity = pyrage.x25519.Identity.generate()
    file = tmp_path / "key.txt"
    file.write_text(f"# created: today\n# public key: {identity.to_public()}\n{identity}\n")
    return Keys(str(identity.to_public()), str(identity), file)


@pytest.fixture
def databases() -> Sequence[str]:
    """Addresses of three empty ones."""
    server = shared_mongo()
    return [empty_documents(server) for _ in range(3)]


def environment(folder: Path, keys: Keys, **more: str) -> dict[str, str]:
    kept = {"BACKUP_URL": (folder / "kept").as_uri(), "BACKUP_RECIPIENT": keys.recipient}
    return server_environment(folder / "data", None, **kept, **more)


def test_documents_come_back(
    tmp_path: Path,
    keys: Keys,
    databases: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By the commands that the CronJob and an operator use, while a server goes on writing."""
    variables = environment(tmp_path, keys, MONGODB_CONNECTION_URI=databases[0])
    asyncio.run(migrate_documents(databases[0]))
    with running_server(variables) as server:
        for slug in ("one", "two"):
            assert post(server, server.token("acme"), CONFIG % slug)["data"]["createConfig"]
        before = post(server, server.token("acme"), READ)["data"]
        done = command("backup", "documents", environment=variables)
        assert done.returncode == 0, done.stderr
        post(server, server.token("acme"), CONFIG % "later")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    backup_commands.list_kept()
    listed = capsys.readouterr().out.split()[0]
    assert listed.startswith("documents/")
    assert listed.endswith(".bson.gz.age")
    sealed = next((tmp_path / "kept").rglob("*.age")).read_bytes()
    assert sealed.startswith(b"age-encryption.org/v1\n")
    for word in (b"scripted/echo", b"acme", b"configs"):
        assert word not in sealed

    output = tmp_path / "opened.bson.gz"
    given = ("--identity", str(keys.file), "--output", str(output))
    fetched = command("backup", "fetch", listed, *given, environment=variables)
    assert fetched.returncode == 0, fetched.stderr
    elsewhere = {**variables, "MONGODB_CONNECTION_URI": databases[1]}
    asyncio.run(migrate_documents(databases[1]))
    restored = command("backup", "restore-documents", str(output), environment=elsewhere)
    assert restored.returncode == 0, restored.stderr
    with running_server(elsewhere) as server:
        assert post(server, server.token("acme"), READ)["data"] == before
    with pytest.raises(ArchiveError, match="the database is not empty"):
        read_archive(databases[1], output)


@asynccontextmanager
async def opened(folder: Path, keys: Keys) -> AsyncIterator[Backups]:
    settings = load_settings(
        DATA_DIR=folder / "data", BACKUP_URL=(folder / "kept").as_uri(), BACKUP_RECIPIENT=keys.recipient
    )
    async with open_backups(settings) as backups:
        yield backups


async def test_only_its_private_key_opens_a_backup(tmp_path: Path, keys: Keys) -> None:
    file, output = tmp_path / "ledger.dump", tmp_path / "opened"
    file.write_bytes(b"some sums")
    async with opened(tmp_path, keys) as backups:
        name = await backups.keep(file, "ledger")
        assert [each.name for each in await backups.listed()] == [name]
        with pytest.raises(BackupError, match="this identity does not open it"):
            await backups.fetch(name, str(pyrage.x25519.Identity.generate()), output)
        for none in ("ledger/none.age", "../none.age"):
            with pytest.raises(BackupError, match=f"there is no {none}"):
                await backups.fetch(none, keys.private, output)
        assert not output.exists()
        await backups.fetch(name, keys.private, output)
    assert output.read_bytes() == b"some sums"


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-10], lambda whole: whole[:-30] + bytes([whole[-30] ^ 1]) + whole[-29:]]
)
async def test_a_damaged_backup_is_told(tmp_path: Path, keys: Keys, damage: Callable[[bytes], bytes]) -> None:
    file, output = tmp_path / "ledger.dump", tmp_path / "opened"
    file.write_bytes(b"some sums")
    async with opened(tmp_path, keys) as backups:
        name = await backups.keep(file, "ledger")
        [kept] = (tmp_path / "kept").rglob("*.age")
        kept.write_bytes(damage(kept.read_bytes()))
        with pytest.raises(BackupError, match="is not whole"):
            await backups.fetch(name, keys.private, output)
    assert not output.exists()


def test_what_goes_wrong_is_one_line(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment(tmp_path, keys).items():
        monkeypatch.setenv(name, value)
    nowhere, file = tmp_path / "none" / "opened", tmp_path / "a.dump"
    file.write_bytes(b"x")
    with pytest.raises(SystemExit):
        backup_commands.fetch("ledger/none.age", keys.file, nowhere)
    assert str(nowhere.parent) in "".join(capsys.readouterr().err.splitlines()), "it is the folder that is missing"
    away = {"AWS_ENDPOINT": "http://127.0.0.1:1", "AWS_ALLOW_HTTP": "true", "BACKUP_URL": "s3://bucket"}
    credentials = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "r"}
    for name, value in (away | credentials).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        backup_commands.keep(file, "ledger")
    assert capsys.readouterr().err.startswith("ai-middleware: ")


async def test_where_there_is_no_room_nothing_is_kept_and_nothing_goes(
    tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of the process stands for the disk's."""
    file = tmp_path / "a.dump"
    file.write_bytes(b"x" * 2_000_000)
    async with opened(tmp_path, keys) as backups:
        await backups.keep(file, "ledger")
        before = _files(tmp_path, "*.age")
        os.utime(before[0], (0, 0))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with pytest.raises(BackupError, match="could not be encrypted: File too large"):
                await backups.keep(file, "ledger")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert _files(tmp_path, "*.age") == before
        assert _files(tmp_path, "sealed") == [], "what was begun is taken away"


def _files(folder: Path, name: str) -> Sequence[Path]:
    return sorted(folder.rglob(name))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "BACKUP_URL: is not set: say where"),
        ({"BACKUP_RECIPIENT": f"age1{'q' * 58}"}, "BACKUP_URL: is not set, and BACKUP_RECIPIENT is"),
        ({"BACKUP_URL": "file:///tmp/x"}, "BACKUP_RECIPIENT: is not set, and BACKUP_URL is"),
        ({"BACKUP_URL": "file:///tmp/x", "BACKUP_RECIPIENT": f"age1{'q' * 58}"}, "BACKUP_RECIPIENT: is not a public"),
    ],
)
async def test_what_is_half_set_is_told(tmp_path: Path, given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        async with open_backups(load_settings(DATA_DIR=tmp_path, **given)):
            pass


async def test_old_ones_go_once_a_newer_one_is_there(tmp_path: Path, keys: Keys) -> None:
    file = tmp_path / "a.dump"
    file.write_bytes(b"x")
    async with opened(tmp_path, keys) as backups:
        await backups.keep(file, "ledger")
        [old] = (tmp_path / "kept").rglob("*.age")
        kept = old.rename(old.with_name("2020-01-01T00-00-00Z.dump.age"))
        os.utime(kept, (0, 0))
        await backups.keep(file, "other")
        assert kept.exists(), "another kind's are its own"
        await backups.keep(file, "ledger")
        assert not kept.exists()
        assert len(await backups.listed()) == 2


async def test_an_archive_is_of_one_moment_whole_and_of_this_schema(tmp_path: Path, databases: Sequence[str]) -> None:
    source, target, other = databases
    path = tmp_path / "archive.bson.gz"
    with pytest.raises(SchemaVersionError):
        await asyncio.to_thread(write_archive, source, path)
    await migrate_documents(source)
    with pymongo.MongoClient[dict[str, Any]](source) as client:
        books = client.get_default_database()["price_books"]
        books.insert_many([{"_id": f"org-{number}", "rules": number} for number in range(1_200)])
        books.insert_one({"_id": "large", "rules": 1_200, "text": "x" * LARGE})
    assert await asyncio.to_thread(write_archive, source, path) == 1_201
    with pytest.raises(ArchiveError, match="it is of schema"):
        await asyncio.to_thread(read_archive, target, path)
    await migrate_documents(target)
    whole = gzip.decompress(path.read_bytes())
    for broken in (
        path.read_bytes()[:-20],
        gzip.compress(whole[: len(whole) // 2]),
        gzip.compress(whole[:-60]),
        b"none",
    ):
        half = tmp_path / "half"
        half.write_bytes(broken)
        with pytest.raises(ArchiveError):
            await asyncio.to_thread(read_archive, target, half)
    assert await asyncio.to_thread(read_archive, target, path) == 1_201
    with pymongo.MongoClient[dict[str, Any]](target) as client:
        *numbered, large = client.get_default_database()["price_books"].find().sort("rules")
        assert {each["_id"]: each["rules"] for each in numbered} == {f"org-{number}": number for number in range(1_200)}
        assert len(large["text"]) == LARGE
    with pytest.raises(SchemaVersionError):
        await asyncio.to_thread(write_archive, other, path)


async def test_a_backup_that_takes_longer_than_its_moment_is_kept_says_so(
    tmp_path: Path, databases: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server says then, which would take minutes, is put in the place of its answer."""
    await migrate_documents(databases[0])

    def too_old(*_: object, **__: object) -> NoReturn:
        raise OperationFailure("Read timestamp is older than the oldest available", 239)

    monkeypatch.setattr(Collection, "find", too_old)
    with pytest.raises(StoreUnavailableError, match="minSnapshotHistoryWindowInSeconds"):
        await asyncio.to_thread(write_archive, databases[0], tmp_path / "archive")


@pytest.mark.parametrize("kind", [Kind.PLAIN, Kind.APACHE])
async def test_the_ledger_comes_back(tmp_path: Path, kind: Kind) -> None:
    """By the scripts of the CronJob and of `docs/operate.md`, on plain PostgreSQL and with TimescaleDB."""
    with running_postgres(kind=kind) as server:
        async with empty_database(server) as source, empty_database(server) as target:
            for url in (source, target):
                await _execute(url, *ROLES, f"ALTER DATABASE {url.rpartition('/')[2].partition('?')[0]} OWNER TO owner")
            owned, restored = (url.replace("//postgres:", "//owner:") for url in (source, target))
            await migrate_ledger(owned)
            variables = server_environment(tmp_path, None, TIMESCALE_SERVICE_URL=owned)
            with running_server(variables) as process:
                for _ in range(3):
                    assert post(process, process.token("acme"), COMPLETE)["data"]["complete"]["id"]
            dump = (server.root or Path("/")) / "tmp" / f"{os.getpid()}-{kind}.dump"
            try:
                dumped = _carried_out(server, "dump-ledger.sh", source, user="backup", OUTPUT=dump)
                assert dumped.returncode == 0, dumped.stderr
                done = _carried_out(server, "restore-ledger.sh", target, INPUT=dump)
                assert done.returncode == 0, done.stderr
                assert await _ledger(target) == await _ledger(source)
                refused = _carried_out(server, "restore-ledger.sh", target, INPUT=dump)
                assert (refused.returncode, "is not empty" in refused.stderr) == (1, True)
            finally:
                dump.unlink(missing_ok=True)
            with running_server({**variables, "TIMESCALE_SERVICE_URL": restored}) as process:
                assert post(process, process.token("acme"), COMPLETE)["data"]["complete"]["id"]
            assert len(await _ledger(target)) == 4


ROLES = (
    "DROP ROLE IF EXISTS backup",
    f"CREATE ROLE backup LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_read_all_data",
    f"DO $$BEGIN CREATE ROLE owner LOGIN PASSWORD '{PASSWORD}'; EXCEPTION WHEN duplicate_object THEN NULL; END$$",
)
"""As `init-primary.sh` makes them."""


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def _ledger(url: str) -> list[tuple[Any, ...]]:
    columns = "completion_id, attempt, provider, input_tokens, output_tokens"
    return await rows(url, f"SELECT {columns} FROM ledger_entries ORDER BY 1, 2")


def _carried_out(
    server: Postgres, script: str, url: str, user: str = "postgres", **files: Path
) -> subprocess.CompletedProcess[str]:
    """Beside the server's own programs, in its root where it has one."""
    told = {name: server.seen(path) for name, path in files.items()}
    database = url.rpartition("/")[2].partition("?")[0]
    environment = programs(server, PGUSER=user, PGPASSWORD=PASSWORD, PGDATABASE=database, **told)
    command = ["sh", "-c", (SCRIPTS / "backups" / script).read_text()]
    if server.root is not None:
        command = ["chroot", str(server.root), *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
