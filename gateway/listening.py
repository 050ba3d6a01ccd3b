"""The sockets that the process listens on."""

from __future__ import annotations

import errno
import socket

from .settings import SettingsError

BACKLOG = 2048
SEND_BUFFER_BYTES = 128 * 1024  # what the kernel may hold for a reader that stalls; else 4 MiB each
_PORT_ERRORS = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EPERM})


def listen(host: str, port: int, *, variable: str) -> socket.socket:
    """A listening socket; each accepted one inherits its send buffer.

    Raises SettingsError that names HOST where it is no address of this machine, else `variable`, the port's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except UnicodeError:
        raise SettingsError(f"HOST: {host!r} is not the name of a host") from None
    except OSError as error:
        at_fault = variable if error.errno in _PORT_ERRORS else "HOST"
        raise SettingsError(f"{at_fault}: can't listen on {host}, port {port}: {error.strerror}") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listener
