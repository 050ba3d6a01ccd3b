"""A transport for addresses that tenants give: no connection to what is not public, whatever way it is led there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import pytest

from providers.addresses import OutboundAddresses
from providers.errors import ProviderUnavailableError
from providers.http import HttpTransport, open_transport
from tests.servers.raw import serving

OK = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
NOWHERE = OutboundAddresses()
HERE = OutboundAddresses([ip_network("127.0.0.1")])


async def post(transport: HttpTransport, url: str) -> int:
    return (await transport.post(url, headers={}, body=b"{}", provider="webhook")).status


async def assert_refused(transport: HttpTransport, url: str) -> None:
    with pytest.raises(ProviderUnavailableError) as caught:
        await post(transport, url)
    assert not caught.value.retryable
    assert not caught.value.sent
    assert caught.value.message in ("not a public address", "not an HTTP address")


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: Sequence[str]) -> list[str]:
    """Each look-up of a name gets the next of the answers, the last for good; what was looked up."""
    left, asked = list(answers), list[str]()

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1", "2130706433"]
)
async def test_this_machine_is_not_called(host: str) -> None:
    async with serving(OK) as server, open_transport(trust_env=False, outbound=NOWHERE) as transport:
        await assert_refused(transport, f"http://{host}:{server.port}/x")
        assert server.connections == 0


async def test_the_operator_s_list_opens_it() -> None:
    async with serving(OK) as server, open_transport(trust_env=False, outbound=HERE) as transport:
        assert await post(transport, server.url) == 200


async def test_what_a_name_resolves_to_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(OK) as server, open_transport(trust_env=False, outbound=NOWHERE) as transport:
        asked = resolving(monkeypatch, ["127.0.0.1"])
        await assert_refused(transport, f"http://public.example:{server.port}/x")
        assert (asked, server.connections) == (["public.example"], 0)


async def test_of_several_addresses_only_allowed_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(OK) as server:
        resolving(monkeypatch, ["127.0.0.2", "10.0.0.1", "127.0.0.1"])
        async with open_transport(trust_env=False, outbound=HERE) as transport:
            assert await post(transport, f"http://several.example:{server.port}/x") == 200
        resolving(monkeypatch, ["127.0.0.2", "10.0.0.1"])
        async with open_transport(trust_env=False, outbound=HERE) as transport:
            await assert_refused(transport, f"http://several.example:{server.port}/x")
    assert server.connections == 1


async def test_a_name_that_is_bound_anew_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second answer leads to what is not allowed: each connection is looked at, not each name."""
    allowed = OutboundAddresses([ip_network("127.0.0.2")])
    async with serving(OK) as server, open_transport(trust_env=False, outbound=allowed) as transport:
        url = f"http://rebound.example:{server.port}/x"
        asked = resolving(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
        with pytest.raises(ProviderUnavailableError, match="can't connect"):
            await post(transport, url)  # nobody listens there, and it may be called
        monkeypatch.setattr("aiohttp.connector._DNSCacheTable.expired", lambda *_: True)
        await assert_refused(transport, url)
        assert (len(asked), server.connections) == (2, 0)


async def test_a_redirect_leads_nowhere() -> None:
    inner = b"HTTP/1.1 307 Temporary\r\nlocation: http://127.0.0.2:9/\r\ncontent-length: 0\r\n\r\n"
    async with serving(inner) as server, open_transport(trust_env=False, outbound=HERE) as transport:
        assert await post(transport, server.url) == 307


async def test_by_a_proxy_only_what_the_url_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(OK) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/x"))
        monkeypatch.setenv("no_proxy", "direct.example")
        async with open_transport(outbound=NOWHERE) as transport:
            for host in ("127.0.0.1", "169.254.169.254", "[::1]", "2130706433", "localhost", "redis"):
                await assert_refused(transport, f"http://{host}/x")
            assert proxy.connections == 0
            assert await post(transport, "http://hooks.example/x") == 200
            assert proxy.heads[0].startswith(b"POST http://hooks.example/x ")
            resolving(monkeypatch, ["127.0.0.1"])
            await assert_refused(transport, f"http://direct.example:{proxy.port}/x")
        assert proxy.connections == 1
