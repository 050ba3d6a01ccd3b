"""The data tier's scripts and files, on the real servers."""

from __future__ import annotations

import asyncio
import os
import random
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pyrage
import pytest
import redis

from tests.e2e.processes import post, running_server, server_environment
from tests.e2e.test_cli import command
from tests.e2e.test_mongo import readiness
from tests.servers.mongo import running_mongo
from tests.servers.ports import free_port, listens
from tests.servers.postgres import Postgres, rows, running_postgres
from tests.servers.rabbit import rabbit_or_skip
from tests.servers.redis import Node, redis_or_skip

from .rendered import OVERLAYS, ROOT, objects

PRODUCTION = OVERLAYS[1]
SCRIPTS = ROOT / "data"


def run(script: Path, environment: dict[str, str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["sh", str(script)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def programs(server: Postgres, **more: str) -> dict[str, str]:
    """Where PostgreSQL's programs find it, and each other."""
    return {
        "PATH": f"{server.binaries}:{os.environ['PATH']}",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGPASSWORD": "not-for-any-log",
        "PGDATA": str(server.folder),
        **more,
    }


@pytest.fixture(scope="module")
def primary() -> Iterator[Postgres]:
    """As its first start leaves it."""
    with running_postgres() as server:
        given = {f"{name}_PASSWORD": f"{name.lower()}-{'x' * 20}" for name in ("APPLICATION", "REPLICATION", "BACKUP")}
        run(SCRIPTS / "timescaledb/init-primary.sh", programs(server, POSTGRES_USER="postgres", **given))
        server.stop()
        server.start()
        yield server


def url(server: Postgres, user: str) -> str:
    password = {"ai_middleware": "application", "replicator": "replication", "backup": "backup"}[user]
    return f"postgresql://{user}:{password}-{'x' * 20}@127.0.0.1:{server.port}/ai_middleware?sslmode=disable"


def test_the_server_needs_no_superuser(primary: Postgres, tmp_path: Path) -> None:
    variables = server_environment(tmp_path, None, TIMESCALE_SERVICE_URL=url(primary, "ai_middleware"))
    assert command("migrate", environment=variables).returncode == 0
    with running_server(variables) as server:
        assert readiness(server) == (200, "ready\n")
        message = '{ complete(input: {model: "scripted/echo", messages: [{role: USER, content: "hi"}]}) { id } }'
        answer = post(server, server.token("acme"), f"mutation {message}")
        assert answer["data"]["complete"]["id"], answer


async def test_the_backup_s_user_reads_and_nothing_else(primary: Postgres) -> None:
    connection = await asyncpg.connect(url(primary, "backup"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("CREATE TABLE public.of_its_own (number int)")
    finally:
        await connection.close()


def _with_a_slot_that_is_lost(primary: Postgres) -> None:
    """As a replica leaves it that was away for too long."""

    async def lose() -> None:
        connection = await asyncpg.connect(primary.url())
        try:
            await connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
            await connection.execute("SELECT pg_reload_conf()")
            await connection.execute("SELECT pg_create_physical_replication_slot('replica', true)")
            for _ in range(4):
                await connection.execute(
                    "CREATE TABLE filling (number int); DROP TABLE filling; SELECT pg_switch_wal()"
                )
            await connection.execute("CHECKPOINT")
            state = await connection.fetchval("SELECT wal_status FROM pg_replication_slots")
            assert state == "lost"
            await connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            await connection.execute("SELECT pg_reload_conf()")
        finally:
            await connection.close()

    asyncio.run(lose())


async def _until_followed(primary: Postgres) -> None:
    """A replica answers as soon as it can be read, and may ask for what is new a moment later."""
    slots = "SELECT 1 FROM pg_replication_slots WHERE slot_name = 'replica' AND active"
    async with asyncio.timeout(30):
        while not await rows(primary.url(), slots):  # noqa: ASYNC110  # by another process
            await asyncio.sleep(0.05)


def test_a_replica_follows(primary: Postgres) -> None:
    """In the place of one that was lost, and over what a copy of a primary that was a replica once has left halfway."""
    _with_a_slot_that_is_lost(primary)
    folder = Path(f"{primary.folder}-replica")
    replica = replace(primary, folder=folder / "pgdata", port=free_port())
    folder.mkdir()
    try:
        environment = programs(
            primary,
            PGDATA=str(replica.folder),
            PRIMARY_HOST="127.0.0.1",
            PRIMARY_PORT=str(primary.port),
            REPLICATION_PASSWORD=f"replication-{'x' * 20}",
        )
        replica.folder.mkdir()
        (replica.folder / "half").write_text("of a copy that broke off")
        (replica.folder / ".cloned").write_text("and had begun with the primary's own files")
        run(SCRIPTS / "timescaledb/clone-primary.sh", environment)
        assert not (replica.folder / "half").exists()
        copied = (replica.folder / "PG_VERSION").stat().st_mtime_ns
        run(SCRIPTS / "timescaledb/clone-primary.sh", environment)
        assert (replica.folder / "PG_VERSION").stat().st_mtime_ns == copied, "it is made once"
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            for path in folder.rglob("*"):
                shutil.chown(path, "postgres", "postgres")
        replica.start()
        [(recovering,)] = asyncio.run(rows(url(replica, "ai_middleware"), "SELECT pg_is_in_recovery()"))
        assert recovering
        asyncio.run(_until_followed(primary))
    finally:
        replica.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_six_redis_are_one_cluster(tmp_path: Path) -> None:
    """Formed where that had broken off, formed once more, and whole again after all of them are known under no address
    that is right."""
    redis_or_skip()
    config = SCRIPTS / "redis/redis.conf"
    with ExitStack() as stack:
        nodes = []
        for number in range(6):
            port = _free_pair()
            folder = tmp_path / str(number)
            folder.mkdir()
            told = re.sub(r"(?m)^(port|cluster-port|dir) .*$", "", config.read_text())
            (folder / "redis.conf").write_text(told.replace("/data/nodes.conf", str(folder / "nodes.conf")))
            node = _Configured(folder, port)
            node.start()
            stack.callback(node.kill)
            nodes.append(node)
        environment = {
            "PATH": os.environ["PATH"],
            "REDISCLI_AUTH": "a-password",
            "NODES": " ".join(f"127.0.0.1:{node.port}" for node in nodes),
        }
        _half_formed(nodes)
        for _ in range(2):
            assert "the cluster serves all slots" in run(SCRIPTS / "redis/form-cluster.sh", environment).stdout
        client = _of_three_pairs(nodes[0].port)
        client.set("kept", "yes")
        client.close()
        for node in nodes:
            node.stop()
        for node in nodes:  # as pods that come back elsewhere: what they knew of each other leads nowhere
            known = node.folder / "nodes.conf"
            known.write_text(re.sub(r"127\.0\.0\.1:(\d+)@", "127.0.0.9:\\1@", known.read_text()))
            node.start()
        run(SCRIPTS / "redis/form-cluster.sh", environment)
        client = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port, password="a-password")
        assert client.get("kept") == b"yes"
        client.close()


def _half_formed(nodes: Sequence[Node]) -> None:
    """As `redis-cli --cluster create` leaves them where its pod is evicted: some parts are given out."""
    until = time.monotonic() + 30
    while not all(listens(node.port) for node in nodes):
        assert time.monotonic() < until
        time.sleep(0.05)
    with redis.Redis(port=nodes[0].port, password="a-password") as client:
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 5460)
        client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[1].port)


def _free_pair() -> int:
    """A port whose bus port, 10,000 above, is free too; below those that the system gives away meanwhile."""
    while True:
        port = random.randrange(12_000, 22_000)
        if not listens(port) and not listens(port + 10_000):
            return port


def _of_three_pairs(port: int) -> redis.RedisCluster:
    """Returns when the node has heard of all the others' parts."""
    until = time.monotonic() + 60
    while True:
        client = redis.RedisCluster(host="127.0.0.1", port=port, password="a-password")
        if (len(client.get_primaries()), len(client.get_replicas())) == (3, 3):
            return client
        client.close()
        assert time.monotonic() < until
        time.sleep(0.1)


class _Configured(Node):
    """A node by the file of the manifests."""

    def start(self) -> None:
        passwords = ("--requirepass", "a-password", "--masterauth", "a-password")
        own = (str(self.folder / "redis.conf"), "--appendonly", "yes", "--cluster-announce-ip", "127.0.0.1")
        binary = shutil.which("redis-server")
        assert binary is not None
        basics = ("--bind", "127.0.0.1", "--dir", str(self.folder), "--port", str(self.port))
        self.process = subprocess.Popen(
            [binary, *own, *basics, *passwords], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )


def test_mongodb_s_role_is_enough_and_no_more(tmp_path: Path) -> None:
    """The server migrates, starts and writes by it; other databases and other deeds are refused. The backup's reads."""
    spec = objects(PRODUCTION, "MongoDBCommunity")["ai-middleware-mongodb"]["spec"]
    [role] = spec["security"]["roles"]
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(64))
    key.chmod(0o600)
    with running_mongo(options=(f"--keyFile={key}",)) as mongo:
        with mongo.client(mongo.nodes[0]) as client:
            client.admin.command("createUser", "root", pwd="root", roles=["root"])
        with replace(mongo, credentials="root:root@").client() as client:
            database = client[role["db"]]
            database.command("createRole", role["role"], privileges=role["privileges"], roles=role["roles"])
            for user in spec["users"]:
                given = [{"role": each["name"], "db": each["db"]} for each in user["roles"]]
                client[user["db"]].command("createUser", user["name"], pwd="password", roles=given)
        guarded = replace(mongo, credentials="ai-middleware:password@")
        uri = guarded.url(role["db"]).replace("authSource=admin", f"authSource={role['db']}")
        variables = server_environment(tmp_path / "data", None, MONGODB_CONNECTION_URI=uri)
        done = command("migrate", environment=variables)
        assert done.returncode == 0, done.stderr
        with running_server(variables) as server:
            assert readiness(server) == (200, "ready\n")
            draft = 'mutation { createConfig(input: {slug: "a", draft: {model: "scripted/echo"}}) { id } }'
            assert post(server, server.token("acme"), draft)["data"]["createConfig"]["id"]
        _refused(uri)
        done = _kept(tmp_path, replace(mongo, credentials="backup:password@").url(role["db"]))
        assert (done.returncode, "documents/" in done.stdout) == (0, True), done.stderr


def _kept(folder: Path, uri: str) -> subprocess.CompletedProcess[str]:
    """By the command of the CronJob, which has no other database's address."""
    job = objects(PRODUCTION, "CronJob")["ai-middleware-backup-documents"]["spec"]["jobTemplate"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    variables = {"BACKUP_URL": (folder / "kept").as_uri(), "BACKUP_RECIPIENT": recipient, "ENVIRONMENT": "PRODUCTION"}
    environment = server_environment(folder / "backup", None, MONGODB_CONNECTION_URI=uri, **variables)
    return command(*container["args"], environment=environment)


def _refused(uri: str) -> None:
    import pymongo
    from pymongo.errors import OperationFailure

    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        for deed in (
            lambda: client["another"]["things"].insert_one({}),
            lambda: client["ai_middleware"].command("dropDatabase"),
            lambda: client["ai_middleware"]["configs"].drop(),
            lambda: client["ai_middleware"].command("usersInfo", 1),
        ):
            with pytest.raises(OperationFailure) as caught:
                deed()
            assert caught.value.code == 13


_READ = """
Schema = cuttlefish_schema:files(filelib:wildcard(os:getenv("SCHEMAS"))),
case cuttlefish_generator:map(Schema, cuttlefish_conf:files([os:getenv("CONF")])) of
    {error, _, {errorlist, Errors}} -> io:format("~p~n", [Errors]), halt(1);
    Config -> io:format("~p~n", [Config]), halt(0)
end.
"""


@pytest.mark.parametrize("mistake", ["", "cluster_partition_handlin = ignore\n"])
def test_rabbitmq_takes_its_configuration(tmp_path: Path, mistake: str) -> None:
    """By the library that reads it, which knows every key of the release."""
    rabbit_or_skip()
    [release] = Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*")
    told = tmp_path / "rabbitmq.conf"
    told.write_text((SCRIPTS / "rabbitmq/rabbitmq.conf").read_text() + mistake)
    done = subprocess.run(
        ["erl", "-noshell", "-pa", *map(str, release.glob("plugins/*/ebin")), "-eval", _READ],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SCHEMAS": f"{release}/plugins/*/priv/schema/*.schema",
            "CONF": str(told),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is not bool(mistake), done.stdout + done.stderr
    assert ("pause_minority" in done.stdout) is not bool(mistake)
