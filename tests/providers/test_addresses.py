"""Which addresses are public, and which hosts may be one."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from providers.addresses import OutboundAddresses, is_public

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:830::200e",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.1.1",
    "198.19.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:53aa:64c:0:fbff:80ff:fffe",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))
    assert OutboundAddresses().allow(ip_address(address))
    assert OutboundAddresses().may_name(f"[{address}]" if ":" in address else address)


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not OutboundAddresses().allow(ip_address(address))
    assert not OutboundAddresses().may_name(address)
    assert not OutboundAddresses().may_name(f"[{address}]")


def test_the_operator_s_list_allows_its_own_alone() -> None:
    outbound = OutboundAddresses([ip_network("10.1.0.0/16"), ip_network("fd00::/8")])
    for allowed in ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00::1", "8.8.8.8"):
        assert outbound.allow(ip_address(allowed))
        assert outbound.may_name(allowed)
    for refused in ("10.2.0.1", "127.0.0.1", "fe80::1", "::ffff:10.2.0.1"):
        assert not outbound.allow(ip_address(refused))
        assert not outbound.may_name(refused)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "010.0.0.1",
        "8.8.8.8.8",
        "\uff11\uff12\uff17.\uff10.\uff10.\uff11",
        "127\u30020\u30020\u30021",
        "127\uff610\uff610\uff611",
        "\u2460\u2461\u2466.0.0.1",
        "[::1]",
        "[::ffff:7f00:1]",
        "fe80::1%eth0",
        "%31%32%37.0.0.1",
        "",
        ".",
    ],
)
def test_no_notation_of_an_address_gets_by(host: str) -> None:
    assert not OutboundAddresses().may_name(host)
    assert not OutboundAddresses([ip_network("192.168.0.0/16")]).may_name(host)


@pytest.mark.parametrize("host", ["redis", "db.internal", "metadata.google.internal", "nas.local"])
def test_names_of_internal_networks(host: str) -> None:
    assert not OutboundAddresses().may_name(host)
    assert OutboundAddresses([ip_network("10.0.0.0/8")]).may_name(host)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost"])
def test_this_machine_s_own_name(host: str) -> None:
    assert not OutboundAddresses([ip_network("10.0.0.0/8")]).may_name(host)
    assert OutboundAddresses([ip_network("127.0.0.1")]).may_name(host)


@pytest.mark.parametrize(
    "host", ["example.com", "EXAMPLE.com.", "b\u00fccher.example", "1.example.com", "0x7f.com", "local.example"]
)
def test_other_names(host: str) -> None:
    assert OutboundAddresses().may_name(host)
