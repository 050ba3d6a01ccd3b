"""The sockets that the process listens on."""

from __future__ import annotations

import socket

from .settings import SettingsError

BACKLOG = 2048
SEND_BUFFER_BYTES = 128 * 1024  # what the kernel may hold for a reader that stalls; else 4 MiB each


def listen(host: str, port: int, *, variable: str) -> socket.socket:
    """A listening socket; each accepted one inherits its send buffer. Raises SettingsError naming `variable`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(f"{variable}: can't listen on {host}, port {port}: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listener
