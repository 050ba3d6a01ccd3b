"""Where a request comes from, whatever its headers claim."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.client_address import client_address

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (("203.0.113.7", 1), None, "203.0.113.7"),
        (("203.0.113.7", 1), "198.51.100.1", "203.0.113.7"),
        (("10.0.0.1", 1), None, "10.0.0.1"),
        (("10.0.0.1", 1), "198.51.100.1", "198.51.100.1"),
        (("10.0.0.1", 1), "1.2.3.4, 198.51.100.1", "198.51.100.1"),
        (("10.0.0.1", 1), "1.2.3.4, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        (("10.0.0.1", 1), "10.0.0.3,10.0.0.2", "10.0.0.3"),
        (("10.0.0.1", 1), "198.51.100.1, nonsense, 10.0.0.2", "10.0.0.2"),
        (("10.0.0.1", 1), "", "10.0.0.1"),
        (("10.0.0.1", 1), "198.51.100.1,", "10.0.0.1"),
        (("fd00::1", 1), "2001:db8::1", "2001:db8::1"),
        (("testclient", 1), "198.51.100.1", "testclient"),
        (None, "198.51.100.1", None),
    ],
)
def test_behind_trusted_proxies(peer: object, forwarded: str | None, address: str | None) -> None:
    headers = {} if forwarded is None else {b"x-forwarded-for": forwarded.encode()}
    assert client_address(peer, headers, TRUSTED) == address


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert client_address(("10.0.0.1", 1), {b"x-forwarded-for": b"198.51.100.1"}, []) == "10.0.0.1"
