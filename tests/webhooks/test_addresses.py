"""Addresses that a webhook may have."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from providers.addresses import OutboundAddresses
from resolvers.errors import BadUserInputError
from resolvers.webhook_checks import check_url


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/",
        "ftp://hooks.example/",
        "hooks.example/a",
        "https://",
        "https:///a",
        "https://user:password@hooks.example/",
        "https://user@hooks.example/",
        "https://hooks.example/#a",
        "https://hooks.example:0/",
        "https://hooks.example:99999/",
        "https://hooks.example:x/",
        "https://hooks.example/a b",
        "https://hooks.example\\@127.0.0.1/",
        "https://hooks.example/\n",
        "https://[::1",
        "https://" + "a" * 64 + ".example/",
        "https://hooks.example/" + "a" * 2048,
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://localhost:8080/",
        "https://redis:6379/",
        "https://metadata.google.internal/",
        "https://\uff11\uff12\uff17.0.0.1/",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(BadUserInputError) as caught:
        check_url(url, OutboundAddresses())
    assert caught.value.path == ("input", "url")


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example",
        "https://hooks.example:8443/a?b=c%20d&e=\u00e9",
        "https://b\u00fccher.example/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:443/",
        "https://" + "a" * 63 + ".example/",
    ],
)
def test_addresses_that_are_taken(url: str) -> None:
    check_url(url, OutboundAddresses())


def test_where_the_operator_lists_networks_plain_addresses_in_them_are_taken() -> None:
    outbound = OutboundAddresses([ip_network("10.0.0.0/8")])
    for url in ("http://10.1.2.3:8080/", "http://hooks:8080/", "https://hooks.example/"):
        check_url(url, outbound)
    for url in ("http://127.0.0.1/", "http://169.254.169.254/", "http://localhost/", "http://0x7f.1/"):
        with pytest.raises(BadUserInputError):
            check_url(url, outbound)
