"""Ports of 127.0.0.1 for servers of tests."""

from __future__ import annotations

import secrets
import socket

_FROM, _COUNT = 10_000, 22_000
"""Below what systems give to outgoing connections: a port stays free until its server takes it, also a second time."""


def free_port() -> int:
    """By chance, as other processes choose theirs too."""
    while True:
        port = _FROM + secrets.randbelow(_COUNT)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:  # it is taken
            continue


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
