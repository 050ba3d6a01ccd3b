"""MongoDB with SCRAM and TLS: what it takes to get in, and what is said of a wrong password, which is not repeated."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from persistence.mongo.client import MongoRefusedError, open_mongo
from persistence.mongo.configs import MongoConfigs
from persistence.ports import StoreUnavailableError
from tests.persistence.audit import noted
from tests.persistence.configs import config
from tests.servers.authority import new_authority
from tests.servers.mongo import Mongo, running_mongo

from .processes import running_server, server_environment
from .test_cli import command
from .test_mongo import readiness

PASSWORD = "not-for-any/log"
ENCODED = "not-for-any%2Flog"


@dataclass
class Guarded:
    mongo: Mongo
    trusted: Path
    others: Path

    def uri(self, credentials: str = f"app:{ENCODED}@") -> str:
        return replace(self.mongo, credentials=credentials).url("app")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    ours = new_authority("ours")
    trusted, others = ours.write(folder / "ca.pem"), new_authority("others").write(folder / "others.pem")
    key = folder / "key"
    key.write_text(secrets.token_hex(64))
    key.chmod(0o600)
    options = (
        f"--keyFile={key}",
        "--tlsMode=requireTLS",
        f"--tlsCertificateKeyFile={ours.write_server(folder / 'server.pem')}",
        f"--tlsCAFile={trusted}",
        "--tlsAllowConnectionsWithoutCertificates",
    )
    with running_mongo(options=options, arguments={"tls": True, "tlsCAFile": str(trusted)}) as mongo:
        with mongo.client(mongo.nodes[0]) as client:  # the first user is made from the same host
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        with replace(mongo, credentials=f"root:{ENCODED}@").client() as client:
            roles = [{"role": role, "db": "app"} for role in ("readWrite", "dbAdmin")]
            client.admin.command("createUser", "app", pwd=PASSWORD, roles=roles)
        yield Guarded(mongo, trusted, others)


def environment(folder: Path, uri: str, ca_file: Path | None) -> dict[str, str]:
    tls = {} if ca_file is None else {"MONGODB_TLS_CA_FILE": str(ca_file)}
    return server_environment(folder, None, MONGODB_CONNECTION_URI=uri, **tls)


def test_with_password_and_authority(guarded: Guarded, tmp_path: Path) -> None:
    variables = environment(tmp_path, guarded.uri(), guarded.trusted)
    assert command("migrate", environment=variables).returncode == 0
    with running_server(variables) as server:
        assert readiness(server) == (200, "ready\n")
        assert PASSWORD not in server.log()
        assert ENCODED not in server.log()


async def test_the_authority_in_the_address(guarded: Guarded) -> None:
    async with open_mongo(f"{guarded.uri()}&tls=true&tlsCAFile={guarded.trusted}") as mongo:
        await mongo.administer(lambda database: database.command("ping"), timeout_s=5)


REFUSALS = {
    "password": ("18 AuthenticationFailed", "app:not-for-any%2Fonelog@", "trusted"),
    "nobody": ("13 Unauthorized", "", "trusted"),
    "authority": ("the server's certificate is not of an authority that is trusted", f"app:{ENCODED}@", "others"),
}


@pytest.mark.parametrize(("verb", "wrong"), [*(("serve", wrong) for wrong in REFUSALS), ("migrate", "password")])
def test_what_is_wrong_is_one_line_at_the_start_without_the_password(
    guarded: Guarded, tmp_path: Path, verb: str, wrong: str
) -> None:
    said, credentials, authority = REFUSALS[wrong]
    uri = guarded.uri(credentials)
    done = command(verb, environment=environment(tmp_path, uri, getattr(guarded, authority)))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"ai-middleware: MONGODB_CONNECTION_URI: MongoDB: {said}"
    for secret in (uri, "onelog", PASSWORD, ENCODED):
        assert secret not in done.stdout + done.stderr


def test_an_authority_that_can_t_be_read(guarded: Guarded, tmp_path: Path) -> None:
    for path in (tmp_path / "none.pem", tmp_path):
        done = command("migrate", environment=environment(tmp_path, guarded.uri(), path))
        assert (done.returncode, f"{path} can't be read as a file of certificates" in done.stderr) == (2, True)


async def test_without_tls_it_is_away(guarded: Guarded) -> None:
    async with open_mongo(guarded.uri(), timeout_s=1) as mongo:
        with pytest.raises(StoreUnavailableError, match="no primary can be reached"):
            await MongoConfigs(mongo).create(config(), audit=noted)


async def test_a_wrong_password_is_told_to_the_prober(guarded: Guarded) -> None:
    async with open_mongo(guarded.uri("app:wrong@"), ca_file=guarded.trusted) as mongo:
        assert await mongo.look() == "MongoDB: 18 AuthenticationFailed"
        with pytest.raises(MongoRefusedError):
            await mongo.probe()


def test_nothing_listens(tmp_path: Path) -> None:
    variables = environment(tmp_path, f"mongodb://app:{ENCODED}@127.0.0.1:1/app", None)
    done = command("migrate", environment=variables)
    assert done.returncode == 2
    assert done.stderr == "ai-middleware: MONGODB_CONNECTION_URI: MongoDB: no primary can be reached\n"
