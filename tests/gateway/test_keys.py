"""The deployment's secrets: made once, for their owner alone, the same in every process."""

from __future__ import annotations

import base64
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest

from gateway.auth import Authenticator, mint
from gateway.claims import UnusableTokenError
from gateway.keys import DEVELOPER, DEVELOPER_ORGANISATION, DeploymentKeys, deployment_keys, developer_token
from gateway.settings import Settings, SettingsError, load_settings
from resolvers.principal import Scope

SECRET = "a-signing-secret-of-more-than-32-bytes"
KEY = bytes(range(32))
RACER = """
import sys
from pathlib import Path
from gateway.keys import deployment_keys, developer_token
from gateway.settings import load_settings
settings = load_settings(DATA_DIR=Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
keys = deployment_keys(settings)
print(keys.signing_secret, keys.encryption_key.hex(), developer_token(settings, keys), flush=True)
"""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(DATA_DIR=tmp_path / "made" / "when" / "needed")


def test_generated_once_and_kept(settings: Settings) -> None:
    first = deployment_keys(settings)
    assert deployment_keys(settings) == first
    assert len(first.signing_secret) >= 32
    assert len(first.encryption_key) == 32
    assert {path.name for path in settings.DATA_DIR.iterdir()} == {"signing-secret", "encryption-key"}


def test_two_deployments_share_nothing(tmp_path: Path) -> None:
    one, other = (deployment_keys(load_settings(DATA_DIR=tmp_path / name)) for name in "ab")
    assert one.signing_secret != other.signing_secret
    assert one.encryption_key != other.encryption_key


def test_files_are_for_their_owner_alone(settings: Settings) -> None:
    developer_token(settings, deployment_keys(settings))
    files = list(settings.DATA_DIR.iterdir())
    assert {path.name for path in files} == {"signing-secret", "encryption-key", "token"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("name", ["signing-secret", "encryption-key", "token"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666])
def test_a_file_that_is_open_to_others_is_refused_and_the_command_mends_it(
    settings: Settings, name: str, mode: int
) -> None:
    token = developer_token(settings, deployment_keys(settings))
    path = settings.DATA_DIR / name
    path.chmod(mode)
    with pytest.raises(SettingsError, match=r"^DATA_DIR: [^\n]+$") as caught:
        developer_token(settings, deployment_keys(settings))
    assert path.read_text().strip() not in str(caught.value)
    _, command, _ = str(caught.value).split("`")
    assert command.endswith(f" {path}")
    subprocess.run(shlex.split(command), check=True)
    assert developer_token(settings, deployment_keys(settings)) == token


def test_given_secrets_are_used_and_not_written(tmp_path: Path) -> None:
    settings = load_settings(
        DATA_DIR=tmp_path / "absent", JWT_TOKEN_SECRET=SECRET, ENCRYPTION_KEY=base64.b64encode(KEY).decode()
    )
    assert deployment_keys(settings) == DeploymentKeys(SECRET, KEY)
    assert not settings.DATA_DIR.exists()


def test_keys_do_not_show() -> None:
    shown = f"{DeploymentKeys(SECRET, KEY)!r} {DeploymentKeys(SECRET, KEY).sealer()!r}"
    assert SECRET not in shown
    assert repr(KEY) not in shown


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACER, str(tmp_path / "data")]
    root = Path(__file__).parents[2]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = {racer.communicate(timeout=30)[0] for racer in racers}
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert len(answers) == 1
    assert len(answers.pop().split()) == 3
    assert len(list((tmp_path / "data").iterdir())) == 3, "nothing is left of the losers"


def test_whoever_is_second_takes_what_the_first_wrote(settings: Settings) -> None:
    """The first finishes between the second's look and its write."""
    settings.DATA_DIR.mkdir(parents=True)
    (settings.DATA_DIR / "signing-secret").write_text(SECRET)
    (settings.DATA_DIR / "signing-secret").chmod(0o600)
    with patch.object(Path, "exists", return_value=False):
        assert deployment_keys(settings).signing_secret == SECRET


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("encryption-key", b""),
        ("encryption-key", b"AAAA"),
        ("encryption-key", b"not base64"),
        ("encryption-key", b"\xff\xfe\x00"),
        ("signing-secret", b""),
        ("signing-secret", b"cut short"),
        ("signing-secret", b"\xff" * 64),
    ],
)
def test_a_damaged_file_is_refused_and_left_as_it_is(settings: Settings, name: str, content: bytes) -> None:
    deployment_keys(settings)
    path = settings.DATA_DIR / name
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        deployment_keys(settings)
    message = str(caught.value)
    assert message.startswith("DATA_DIR: ")
    assert str(path) in message
    assert len(message.splitlines()) == 1
    assert "cut short" not in message
    assert path.read_bytes() == content


def test_a_data_dir_that_can_not_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for directory in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(SettingsError, match=r"^DATA_DIR: [^\n]+$"):
            deployment_keys(load_settings(DATA_DIR=directory))


def test_a_developer_token_serves_every_scope(settings: Settings) -> None:
    keys = deployment_keys(settings)
    token = developer_token(settings, keys)
    assert developer_token(settings, keys) == token
    principal = Authenticator(keys.signing_secret).principal(token)
    assert (principal.subject, principal.organisation) == (DEVELOPER, DEVELOPER_ORGANISATION)
    assert principal.scopes == set(Scope)
    assert principal.expires_at > time.time() + 300 * 24 * 3600


def kept_token(secret: str, lifetime_s: float, scopes: list[Scope]) -> str:
    return mint(secret, subject=DEVELOPER, organisation="local", scopes=scopes, lifetime_s=lifetime_s)


@pytest.mark.parametrize("case", ["expired", "expires today", "another secret", "a scope is new", "garbage", "empty"])
def test_a_token_that_no_longer_serves_is_renewed(settings: Settings, case: str) -> None:
    keys = deployment_keys(settings)
    old = {
        "expired": kept_token(keys.signing_secret, -1, list(Scope)),
        "expires today": kept_token(keys.signing_secret, 3600, list(Scope)),
        "another secret": kept_token(SECRET, 10**7, list(Scope)),
        "a scope is new": kept_token(keys.signing_secret, 10**7, [Scope.USAGE_READ]),
        "garbage": "garbage",
        "empty": "",
    }[case]
    path = settings.DATA_DIR / "token"
    path.write_text(old)
    path.chmod(0o600)
    token = developer_token(settings, keys)
    assert token != old
    assert path.read_text() == token == developer_token(settings, keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Authenticator(keys.signing_secret).principal(token).scopes == set(Scope)
    assert len(list(settings.DATA_DIR.iterdir())) == 3


def test_a_new_signing_secret_ends_old_tokens(settings: Settings) -> None:
    token = developer_token(settings, deployment_keys(settings))
    (settings.DATA_DIR / "signing-secret").unlink()
    keys = deployment_keys(settings)
    with pytest.raises(UnusableTokenError, match="another secret"):
        Authenticator(keys.signing_secret).principal(token)
    assert developer_token(settings, keys) != token


def test_production_has_no_developer_token(tmp_path: Path) -> None:
    settings = load_settings(
        ENVIRONMENT="PRODUCTION",
        DATA_DIR=tmp_path,
        JWT_TOKEN_SECRET=SECRET,
        ENCRYPTION_KEY=base64.b64encode(KEY).decode(),
    )
    with pytest.raises(SettingsError, match=r"^ENVIRONMENT: "):
        developer_token(settings, deployment_keys(settings))
    assert list(tmp_path.iterdir()) == []
