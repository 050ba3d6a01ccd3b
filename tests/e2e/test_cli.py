"""The command line, as a person uses it."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from .processes import Server, running_server, server_environment


def command(*arguments: str, environment: dict[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, str]:
    """The environment of someone who has set nothing but a folder and a free port."""
    return {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"), "PORT": "0"}


def asking(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(server.folder),
        "AI_MIDDLEWARE_TOKEN": server.token("cli"),
    }
    return command("complete", *arguments, "--url", server.url, environment=environment)


def test_complete_prints_the_answer(server: Server) -> None:
    done = asking(server, "Hello [[tokens=4]]", "--model", "openai/gpt-4o-mini")
    assert (done.returncode, done.stdout) == (0, "token0 token1 token2 token3\n")
    assert "openai/gpt-4o-mini" in done.stderr


def test_complete_streams_and_falls_back(server: Server) -> None:
    done = asking(
        server,
        "Hello [[401@groq]]",
        "--stream",
        "--model",
        "groq/llama-3.3-70b-versatile",
        "--fallback",
        "scripted/echo",
    )
    assert (done.returncode, done.stdout) == (0, "You said: Hello [[401@groq]]\n")
    assert "PROVIDER_AUTH" in done.stderr


def test_complete_says_what_went_wrong(server: Server) -> None:
    refused = asking(server, "Hello", "--model", "[red]nobody/nothing")
    assert refused.returncode == 1
    assert "BAD_USER_INPUT" in refused.stderr
    assert "[red]nobody" in refused.stderr
    broken = asking(server, "Hello [[401]]", "--stream", "--model", "openai/gpt-4o-mini")
    assert broken.returncode == 1
    assert "PROVIDER_AUTH" in broken.stderr


def test_complete_without_a_server(plain: dict[str, str]) -> None:
    done = command("complete", "Hello", "--url", "http://127.0.0.1:9/graphql", environment=plain)
    assert done.returncode == 1
    assert "ai-middleware serve" in done.stderr


def test_the_first_start_needs_nothing_and_its_curl_line_works(plain: dict[str, str]) -> None:
    environment = {**plain, "JWT_TOKEN_SECRET": "x" * 32}
    with running_server(environment) as server:
        assert server.process.stdout is not None
        printed = ""
        while "curl" not in (line := server.process.stdout.readline()):
            printed += line
        answer = subprocess.run(shlex.split(line), capture_output=True, text=True, timeout=30)
    assert "scripted (a development fake, offline)" in printed
    assert orjson.loads(answer.stdout)["data"]["complete"]["content"] == "You said: Say hello in one sentence."


def test_secrets_are_made_once_and_are_the_owners_alone(plain: dict[str, str]) -> None:
    first = command("token", environment=plain).stdout
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", first)
    assert command("token", environment=plain).stdout == first
    for name in ("signing-secret", "encryption-key", "token"):
        mode = (Path(plain["DATA_DIR"]) / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_encrypt_seals_what_the_settings_open(plain: dict[str, str], tmp_path: Path) -> None:
    sealed = command("encrypt", environment=plain, stdin="sk-my-key\n").stdout.strip()
    assert sealed.startswith("enc:v1:")
    assert "sk-my-key" not in sealed
    with running_server({**plain, "JWT_TOKEN_SECRET": "x" * 32, "OPENAI_API_KEY": sealed}) as server:
        assert server.process.poll() is None
    other = {**plain, "DATA_DIR": str(tmp_path / "other"), "OPENAI_API_KEY": sealed}
    refused = command("serve", environment=other)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "OPENAI_API_KEY" in refused.stderr


def test_migrate_is_safe_twice(plain: dict[str, str]) -> None:
    for _ in range(2):
        assert command("migrate", environment=plain).returncode == 0


def test_schema_writes_the_file_or_prints_it(plain: dict[str, str], tmp_path: Path) -> None:
    committed = (Path(__file__).parents[2] / "schema.graphql").read_text()
    written = tmp_path / "written.graphql"
    assert command("schema", str(written), environment=plain).returncode == 0
    assert written.read_text() == committed
    assert command("schema", "-", environment=plain).stdout == committed


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "many"), ("JWT_TOKEN_SECRET", "short"), ("REDIS_URI", "redis://x"), ("DATA_DIR", "/proc/x")],
)
def test_a_wrong_setting_stops_the_start_with_one_line(plain: dict[str, str], variable: str, value: str) -> None:
    refused = command("serve", environment={**plain, variable: value})
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert f"{variable}:" in refused.stderr
    assert refused.stdout == ""


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    environment = server_environment(tmp_path, None)
    with running_server(environment):
        second = command("serve", environment=environment)
    assert second.returncode == 2
    assert second.stderr.startswith("ai-middleware: DATA_DIR: ")
    assert second.stderr.count("\n") == 1


def test_a_proxy_that_cannot_be_used_stops_the_start(plain: dict[str, str]) -> None:
    refused = command("serve", environment={**plain, "ALL_PROXY": "socks5://user:secret@proxy"})
    assert refused.returncode == 2
    assert refused.stderr == "ai-middleware: ALL_PROXY must begin with http:// or https://\n"
    assert "secret" not in refused.stdout


def test_production_takes_no_generated_secret(plain: dict[str, str]) -> None:
    refused = command("serve", environment={**plain, "ENVIRONMENT": "PRODUCTION"})
    assert refused.returncode == 2
    assert "JWT_TOKEN_SECRET" in refused.stderr
