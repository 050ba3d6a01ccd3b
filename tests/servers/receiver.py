"""A receiver of webhooks: a real HTTP server that keeps what it got."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any


@dataclass(frozen=True)
class Received:
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answers`: the statuses of the next answers; 204 where there is none left. A redirect leads to /elsewhere."""

    port: int = 0
    answers: deque[int] = field(default_factory=deque)
    got: list[Received] = field(default_factory=list)
    _told: Condition = field(default_factory=Condition)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def wait_for(self, count: int, *, timeout_s: float = 60) -> list[Received]:
        """What was got, when there is so much of it."""
        with self._told:
            assert self._told.wait_for(lambda: len(self.got) >= count, timeout_s), f"{len(self.got)} of {count}"
            return list(self.got)

    def keep(self, received: Received) -> int:
        with self._told:
            self.got.append(received)
            self._told.notify_all()
            return self.answers.popleft() if self.answers else 204


@contextmanager
def running_receiver(receiver: Receiver) -> Iterator[Receiver]:
    """On its port, or a free one, which it keeps when it is run again."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status = receiver.keep(Received(self.path, headers, body))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *_: Any) -> None:  # noqa: A002  # its name there
            pass

    class Server(ThreadingHTTPServer):
        allow_reuse_address = True

    server = Server(("127.0.0.1", receiver.port), Handler)
    receiver.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def listening(answer: bytes, *, endless: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """One that answers with these bytes, and then with those of `endless`, again and again for as long as they are
    taken; its port, and what it got."""
    got: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection: socket.socket) -> None:
        with connection:
            got.append(connection.recv(65536))
            try:
                connection.sendall(answer)
                while endless:
                    connection.sendall(endless)
                    time.sleep(0.01)
                connection.recv(65536)
            except OSError:
                return

    Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1], got
    finally:
        server.close()
