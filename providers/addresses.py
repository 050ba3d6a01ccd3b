"""Which addresses are called on behalf of tenants: public ones, and those of networks that the operator lists.

Sources: https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-special-registry, RFC 6890, RFC 6052
(NAT64), https://url.spec.whatwg.org/#ends-in-a-number-checker. Written out, for `ipaddress` judges differently from
one Python to the next.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC = [
    IPv4Network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT (RFC 6598), and clouds' own services
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host, to each of its machines
        "169.254.0.0/16",  # link-local, and clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
]
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # nothing else is given out
_NOT_PUBLIC_V6 = [
    IPv6Network(each)
    for each in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4 (RFC 7526): has an IPv4 address in it, and nobody needs it
        "3fff::/20",
    )
]
_NAT64 = IPv6Network("64:ff9b::/96")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)?)*")
_NO_HOST = re.compile(r"[\s%:/@\\]")
_INTERNAL_NAMES = (".local", ".internal", ".intranet", ".lan", ".home", ".corp", ".home.arpa")
_DOTS = str.maketrans({"\u3002": "."})  # RFC 3490, 3.1; NFKC makes it of the other two


@dataclass(frozen=True, slots=True)
class OutboundAddresses:
    """`networks`: the operator's list."""

    networks: Sequence[Network] = ()

    def allow(self, address: Address) -> bool:
        """Whether a connection may go there."""
        address = _meant(address)
        return is_public(address) or any(address in network for network in self.networks)

    def may_name(self, host: str) -> bool:
        """Whether a host, as a URL gives it, may be one that is allowed: False where it is an address that isn't, in
        whatever notation, or a name that only an internal network has and the operator lists no network. What a name
        resolves to is another question, for who connects to it."""
        name = unicodedata.normalize("NFKC", host).translate(_DOTS).rstrip(".").lower()
        try:
            return self.allow(ip_address(name.strip("[]").partition("%")[0]))
        except ValueError:
            if not name or _NUMERIC.fullmatch(name) or _NO_HOST.search(name):
                return False
        if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
            return self.allow(IPv4Address("127.0.0.1"))
        internal = "." not in name or name.endswith(_INTERNAL_NAMES)
        return bool(self.networks) or not internal


def is_public(address: Address) -> bool:
    """Whether anybody on the internet may have the address."""
    address = _meant(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC)
    return address in _GLOBAL_UNICAST and not any(address in network for network in _NOT_PUBLIC_V6)


def _meant(address: Address) -> Address:
    """The IPv4 address that a mapped or a NAT64 address leads to."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address
