"""The command line, as a person uses it."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from gateway.auth import Authenticator

from .processes import Server, Vendor, running_server, server_environment


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


def asking(server: Server, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(server.folder),
        "AI_MIDDLEWARE_TOKEN": server.token("cli"),
    }
    return command("complete", *arguments, "--url", url or server.url, environment=environment)


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


@pytest.mark.parametrize("stream", [(), ("--stream",)])
@pytest.mark.parametrize("path", ["/nope", "/healthcheck"])
def test_complete_at_another_address_says_so(server: Server, path: str, stream: tuple[str, ...]) -> None:
    address = server.url.replace("/graphql", path)
    done = asking(server, "Hello", *stream, url=address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ai-middleware: {address} answered (HTTP 40")
    assert done.stderr.endswith("check --url, or PORT without it\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("url", ["ftp://x", "http://", "::::", "http://[", "http://me:hunter2@h/"])
def test_complete_wants_an_address(plain: dict[str, str], url: str) -> None:
    done = command("complete", "Hello", "--url", url, environment=plain)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ai-middleware: --url ")
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr


def test_complete_wants_a_token_that_a_header_can_carry(plain: dict[str, str]) -> None:
    done = command("complete", "Hello", "--token", "secret\nx: y", environment=plain)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ai-middleware: --token ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_complete_says_when_the_server_dies_in_mid_stream(vendor: Vendor, tmp_path: Path) -> None:
    with running_server(server_environment(tmp_path, vendor)) as server:
        arguments = ["complete", "[[tokens=2000]] [[pace=20]]", "--stream", "--model", "openai/gpt-4o-mini"]
        client = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments, "--url", server.url, "--token", server.token("cli")],
            env={"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert client.stdout is not None
        assert client.stdout.read(len("token0 ")) == "token0 "
        server.process.kill()
        rest, _ = client.communicate(timeout=30)
    last_token, message = rest.removesuffix("\n").rsplit("\n", 1)
    assert client.returncode == 1
    assert "\n" not in last_token
    assert message.startswith(f"ai-middleware: the answer from {server.url} did not come whole: the connection broke")


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


@pytest.mark.parametrize(
    "options", [("--hours", "1"), ("--scope", "usage:read"), ("--subject", "me"), ("--subject", "")]
)
def test_no_option_is_passed_over_for_the_developers_token(plain: dict[str, str], options: tuple[str, ...]) -> None:
    done = command("token", *options, environment=plain)
    assert (done.returncode, done.stdout) == (1, "")
    assert "--subject and --organisation" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("hours", ["1e300", "87601", "nan"])
def test_a_token_has_a_lifetime_that_the_server_takes(plain: dict[str, str], hours: str) -> None:
    done = command("token", "--subject", "me", "--organisation", "us", "--hours", hours, environment=plain)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--hours" in done.stderr


def test_the_usual_and_the_longest_token_serve(plain: dict[str, str]) -> None:
    new = ("token", "--subject", "me", "--organisation", "us")
    environment = {**plain, "JWT_TOKEN_SECRET": "x" * 32}
    for hours, options in ((24, ()), (87_600, ("--hours", "87600"))):
        minted = command(*new, *options, environment=environment).stdout.strip()
        expires_at = Authenticator("x" * 32).principal(minted).expires_at
        assert expires_at == pytest.approx(time.time() + hours * 3600, abs=60, rel=0)


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
    [
        ("PORT", "many"),
        ("HOST", "999.1.1.1"),
        ("JWT_TOKEN_SECRET", "short"),
        ("REDIS_URI", "http://x"),
        ("QUEUE_CONNECTIONURL", "redis://x"),
        ("CONSUMER_STATUS", "false"),
        ("QUEUE_NAME", "two words"),
        ("DATA_DIR", "/proc/x"),
    ],
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
