"""What can't be listened on is blamed on the variable that can mend it."""

from __future__ import annotations

import errno
import os
import socket
from unittest.mock import patch

import pytest

from gateway.listening import SEND_BUFFER_BYTES, listen
from gateway.settings import SettingsError


def refusal(host: str, port: int) -> str:
    with pytest.raises(SettingsError, match=r"^[^\n]+$") as caught:
        listen(host, port, variable="INTERNAL_PORT")
    return str(caught.value)


@pytest.mark.parametrize(
    "host", ["999.1.1.1", "no-such-host.invalid", "192.0.2.1", "2001:db8::1", "::zz", "a..b", "x" * 64, "::1%nowhere"]
)
def test_an_address_that_is_not_this_machines_is_the_fault_of_host(host: str) -> None:
    message = refusal(host, 0)
    assert message.startswith("HOST: ")
    assert host in message


def test_a_port_in_use_is_the_fault_of_its_variable() -> None:
    with listen("127.0.0.1", 0, variable="PORT") as taken:
        message = refusal("127.0.0.1", taken.getsockname()[1])
    assert message.startswith("INTERNAL_PORT: ")


def test_a_port_that_needs_permission_is_the_fault_of_its_variable() -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    with patch.object(socket, "create_server", side_effect=denied):
        assert refusal("127.0.0.1", 80).startswith("INTERNAL_PORT: ")


def test_a_stalled_reader_has_a_small_buffer() -> None:
    with listen("127.0.0.1", 0, variable="PORT") as listener:
        size = listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert SEND_BUFFER_BYTES <= size <= 2 * SEND_BUFFER_BYTES, "the kernel doubles what it is asked for"
