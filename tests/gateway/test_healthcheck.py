"""The image's health check, as a process."""

from __future__ import annotations

import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tests.servers.ports import free_port


def exit_code(*ports: int) -> int:
    command = [sys.executable, "-m", "gateway.healthcheck", *map(str, ports)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == done.stderr == ""
    return done.returncode


def test_nobody_there() -> None:
    assert exit_code(free_port(), free_port()) == 1


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_on_either_port(status: int, code: int) -> None:
    with HTTPServer(("127.0.0.1", 0), answering(status)) as server:
        Thread(target=server.handle_request).start()
        assert exit_code(free_port(), server.server_port) == code


def answering(status: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthcheck" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def test_it_loads_nothing_that_takes_time() -> None:
    look = "import sys, gateway.healthcheck; print([name for name in sys.modules if name in ('pydantic', 'fastapi')])"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"
