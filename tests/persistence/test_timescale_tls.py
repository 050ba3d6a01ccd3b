"""TLS to the ledger's server, by every `sslmode`, with a certificate authority of the test's own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import text

from persistence.ports import StoreUnavailableError
from persistence.timescale.engine import open_engine
from persistence.timescale.ledger import open_timescale_ledger
from tests.persistence.entries import entry
from tests.servers.postgres import PASSWORD, Postgres, migrated_database, running_postgres

Key = ec.EllipticCurvePrivateKey


def certificate(name: str, key: Key, issuer: str, signer: Key, *, authority: bool) -> bytes:
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


def private(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    path.chmod(0o600)
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


def with_certificate(server: Postgres, name: str, ours: Key) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private(server.folder / "server.key", key.private_bytes(serialization.Encoding.PEM, *form))
    private(server.folder / "server.crt", certificate(name, key, "ours", ours, authority=False))
    server.stop()
    server.start("-c ssl=on")


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Key, Path, Path]:
    """The server's, its certificate, and another one of the same name."""
    folder = tmp_path_factory.mktemp("authorities")
    ours, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    for name, key in (("ours", ours), ("other", other)):
        (folder / name).write_bytes(certificate("ours", key, "ours", key, authority=True))
    return ours, folder / "ours", folder / "other"


@pytest.fixture(scope="module", params=["localhost", "elsewhere.test"])
def server(request: pytest.FixtureRequest, authorities: tuple[Key, Path, Path]) -> Iterator[tuple[Postgres, bool]]:
    """And whether its certificate has its name."""
    with running_postgres() as started:
        with_certificate(started, request.param, authorities[0])
        yield started, request.param == "localhost"


async def reach(url: str) -> bool:
    """Whether by TLS; an entry was written over it too."""
    async with open_timescale_ledger(url) as ledger:
        await ledger.append([entry()])
    async with open_engine(url) as engine:
        [(secure,)] = await engine.run(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        return bool(secure)


async def test_every_mode(server: tuple[Postgres, bool], authorities: tuple[Key, Path, Path]) -> None:
    started, is_named = server
    _, ours, other = authorities
    async with migrated_database(started) as plain:
        assert await reach(plain) is False

        def by(mode: str, authority: Path | None = None) -> str:
            trusted = "" if authority is None else f"&sslrootcert={authority}"
            return plain.replace("sslmode=disable", f"sslmode={mode}{trusted}")

        for mode in ("prefer", "require"):
            assert await reach(by(mode)) is True
        assert await reach(by("verify-ca", ours)) is True
        refused = [by("verify-ca", other), by("verify-full", other)]
        if is_named:
            assert await reach(by("verify-full", ours)) is True
        else:
            refused.append(by("verify-full", ours))
        for url in refused:
            with pytest.raises(StoreUnavailableError, match="SSLCertVerificationError") as raised:
                await reach(url)
            assert PASSWORD not in str(raised.value)
            assert raised.value.__suppress_context__
