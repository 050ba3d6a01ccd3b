"""What `docs/operate.md` tells operators to type is there to be typed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
import typer

from gateway.cli import app

from .rendered import EVERYTHING, ROOT, rendered

PAGE = (ROOT.parent / "docs" / "operate.md").read_text()
COMMANDS = sorted(set(re.findall(r"(?m)(?:^|`|-- )ai-middleware ([a-z][^`\n]*)", PAGE)))
NAMED = re.compile(r"\b(?:deploy|deployment|job|statefulset|secret)[ /](ai-middleware[a-z-]*)")


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_its_options_are_there(line: str) -> None:
    command: Any = typer.main.get_command(app)
    given = [word.strip(",;.") for word in line.split()]
    while hasattr(command, "commands"):
        name = given.pop(0)
        assert name in command.commands, line
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in given if word.startswith("--")} <= options, line


def test_the_commands_are_found() -> None:
    assert {line.split()[0] for line in COMMANDS} >= {"migrate", "backup", "token", "queue", "rotate-keys"}


def test_every_object_and_every_file_is_there() -> None:
    made = {each["metadata"]["name"] for each in rendered(EVERYTHING)}
    by_hand = {"ai-middleware-secrets", "ai-middleware-bucket", "ai-middleware-backup-bucket"}
    named = set(NAMED.findall(PAGE))
    assert len(named) > 4
    assert named <= made | by_hand
    for path in re.findall(r"\bk8s/[\w./-]+\b", PAGE):
        assert (ROOT.parent / path).exists() or path == "k8s/overlays/mine", path


class _NotReady(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b"MongoDB has no schema\n")


@pytest.fixture
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _NotReady)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_missing_is_read_where_a_pod_is_not_ready(port: int) -> None:
    [script] = re.findall(r'-- python -c "([^"]+)"', PAGE)
    done = subprocess.run(
        [sys.executable, "-c", script.replace("8081", str(port))], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "MongoDB has no schema")
