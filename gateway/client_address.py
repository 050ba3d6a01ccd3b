"""Where a request comes from, behind the proxies that the operator trusts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

Network = IPv4Network | IPv6Network


def client_address(peer: Any, headers: Mapping[bytes, bytes], trusted: Sequence[Network]) -> str | None:
    """The address that the outermost trusted proxy has seen, by `X-Forwarded-For`, in which each proxy adds its own
    peer at the end. A peer that is not trusted says nothing of others. None where the peer has no address.

    `peer` is ASGI's `client`: a host and a port, or nothing.
    """
    address: str | None = peer[0] if peer else None
    if not trusted or not is_trusted(address, trusted):
        return address
    for told in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
        told = told.strip()
        if not _is_address(told):
            return address  # what stands before it may be anybody's
        address = told
        if not is_trusted(address, trusted):
            return address
    return address


def is_trusted(address: str | None, trusted: Sequence[Network]) -> bool:
    return _is_address(address) and any(ip_address(address or "") in network for network in trusted)


def _is_address(text: str | None) -> bool:
    try:
        ip_address(text or "")
    except ValueError:
        return False
    return True
