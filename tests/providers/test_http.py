from __future__ import annotations

import asyncio
import gzip
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import psutil
import pytest

from providers import http
from providers.errors import ProviderBadResponseError, ProviderTimeoutError, ProviderUnavailableError
from providers.http import HttpTransport, open_transport
from providers.ports import Dispatch, TransportResponse, current_dispatch
from tests.servers.raw import STREAM, chunk, serving

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-Thing: Yes\r\n\r\n{}"


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    async with opened() as transport:
        yield transport


def opened(*, answer_timeout_s: float = 30) -> AbstractAsyncContextManager[HttpTransport]:
    return open_transport(trust_env=False, idle_timeout_s=0.3, answer_timeout_s=answer_timeout_s, max_body_bytes=1000)


async def post(transport: HttpTransport, url: str) -> TransportResponse:
    return await transport.post(url, headers={"x-key": "k"}, body=b"{}", provider="p")


async def read(transport: HttpTransport, url: str) -> bytes:
    async with transport.stream(url, headers={}, body=b"{}", provider="p") as answer:
        return b"".join([each async for each in answer.chunks()])


async def silent(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(1)


async def test_a_request_and_its_answer(transport: HttpTransport) -> None:
    async with serving(OK) as server:
        answer = await post(transport, server.url)
    assert (answer.status, answer.body, answer.headers["x-thing"]) == (200, b"{}", "Yes")
    assert "x-thing" in dict(answer.headers)
    first, *rest = server.heads[0].decode().strip().split("\r\n")
    assert first == "POST /x HTTP/1.1"
    names = {line.partition(":")[0].lower() for line in rest}
    assert names == {"host", "x-key", "accept", "accept-encoding", "user-agent", "content-type", "content-length"}


async def test_connections_are_kept(transport: HttpTransport) -> None:
    async with serving(OK) as server:
        for _ in range(3):
            await post(transport, server.url)
    assert server.connections == 1


async def test_a_connection_keeps_little_of_what_nobody_reads(transport: HttpTransport) -> None:
    async with serving(OK) as server:
        await post(transport, server.url)
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        mine = psutil.Process().net_connections("tcp")
        (handle,) = [each.fd for each in mine if each.raddr and each.raddr.port == port]
        with socket.socket(fileno=os.dup(handle)) as connection:
            kept = connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert kept <= 512 * 1024  # Linux doubles what it is told, for its own use


async def test_cookies_are_not_kept(transport: HttpTransport) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nset-cookie: tenant=a; Path=/\r\ncontent-length: 0\r\n\r\n") as server:
        await post(transport, server.url)
        await post(transport, server.url)
    assert b"cookie" not in server.heads[1].lower()


async def test_redirects_are_not_followed(transport: HttpTransport) -> None:
    async with serving(b"HTTP/1.1 307 Temporary\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n") as server:
        assert (await post(transport, server.url)).status == 307
    assert len(server.heads) == 1


async def test_nobody_listens(transport: HttpTransport) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ProviderUnavailableError) as raised:
            await post(transport, f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (raised.value.sent, raised.value.retryable, raised.value.provider) == (False, True, "p")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "/relative", "http://", "http://[::1", "", "x:y:z"])
async def test_an_address_that_is_none(transport: HttpTransport, url: str) -> None:
    with pytest.raises(ProviderUnavailableError) as raised:
        await post(transport, url)
    assert not raised.value.sent
    assert not raised.value.retryable


async def test_a_whole_answer_takes_its_time(transport: HttpTransport) -> None:
    """The silence before it is no sign of illness, as it is in a stream."""

    async def late(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.5)
        writer.write(OK)

    async with serving(late) as server:
        assert (await post(transport, server.url)).status == 200
        with pytest.raises(ProviderTimeoutError):
            await read(transport, server.url)


async def test_no_answer_in_time() -> None:
    async with serving(silent) as server, opened(answer_timeout_s=0.3) as transport:
        with pytest.raises(ProviderTimeoutError) as raised:
            await post(transport, server.url)
        assert raised.value.sent
        await asyncio.wait_for(server.hung_up.wait(), 20)


@pytest.mark.parametrize("head", [STREAM + chunk(b"data: a\n\n"), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"])
async def test_a_body_that_stalls(transport: HttpTransport, head: bytes) -> None:
    async with serving(head) as server:
        with pytest.raises(ProviderTimeoutError) as raised:
            await read(transport, server.url)
        assert raised.value.sent


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
        STREAM + chunk(b"data: a\n\n"),
        STREAM + b"zz\r\nnot a chunk\r\n",
        b"220 mail.example ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
    ],
)
async def test_a_connection_that_breaks(transport: HttpTransport, answer: bytes) -> None:
    async def write_and_close(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with serving(write_and_close) as server:
        for call in (post, read):
            with pytest.raises(ProviderUnavailableError) as raised:
                await call(transport, server.url)
            assert raised.value.sent
            assert raised.value.retryable


async def test_a_body_may_be_compressed_and_is_bounded_unpacked(transport: HttpTransport) -> None:
    def packed(body: bytes) -> bytes:
        data = gzip.compress(body)
        return f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data

    async with serving(packed(b"x" * 1000)) as server:
        assert (await post(transport, server.url)).body == b"x" * 1000
    async with serving(packed(b"x" * 1001)) as server:
        with pytest.raises(ProviderBadResponseError, match="1000 bytes"):
            await post(transport, server.url)


async def test_a_body_has_a_bound(transport: HttpTransport) -> None:
    async with serving(b"HTTP/1.1 500 No\r\ncontent-length: 999999\r\n\r\n" + b"x" * 1001) as server:
        with pytest.raises(ProviderBadResponseError) as raised:
            await post(transport, server.url)
        assert raised.value.status == 500
        await asyncio.wait_for(server.hung_up.wait(), 20)


async def test_cancelling_hangs_up(transport: HttpTransport) -> None:
    for head in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"):
        arrived = asyncio.Event()

        async def stall(
            body: bytes,
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            head: bytes = head,
            arrived: asyncio.Event = arrived,
        ) -> None:
            writer.write(head)
            arrived.set()
            await reader.readexactly(1)

        async with serving(stall) as server:
            call = asyncio.create_task(post(transport, server.url))
            await arrived.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(server.hung_up.wait(), 20)


async def test_leaving_a_stream_by_an_error_hangs_up(transport: HttpTransport) -> None:
    async with serving(STREAM + chunk(b"data: a\n\n")) as server:
        context = transport.stream(server.url, headers={}, body=b"{}", provider="p")
        answer = await context.__aenter__()
        assert await anext(aiter(answer.chunks())) == b"data: a\n\n"
        await context.__aexit__(GeneratorExit, GeneratorExit(), None)
        await asyncio.wait_for(server.hung_up.wait(), 20)


async def test_a_connection_serves_again_after_a_stream_whose_reader_stopped_at_its_end(
    transport: HttpTransport,
) -> None:
    async def end_later(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM + chunk(b"data: [DONE]\n\n"))
        await writer.drain()
        await asyncio.sleep(0.001)
        writer.write(b"0\r\n\r\n")

    async with serving(end_later) as server:
        for _ in range(3):
            async with transport.stream(server.url, headers={}, body=b"{}", provider="p") as answer:
                assert await anext(aiter(answer.chunks())) == b"data: [DONE]\n\n"
    assert server.connections == 1


async def test_a_vendor_that_never_closes_its_stream_holds_nobody_up() -> None:
    async with (
        serving(STREAM + chunk(b"data: [DONE]\n\n")) as server,
        open_transport(trust_env=False) as patient,
        asyncio.timeout(20),
    ):
        async with patient.stream(server.url, headers={}, body=b"{}", provider="p") as answer:
            await anext(aiter(answer.chunks()))
        await server.hung_up.wait()


async def test_the_pool_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "POOL_TIMEOUT_S", 0.05)
    arrived = asyncio.Event()

    async def stall(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.readexactly(1)

    async with serving(stall) as server, open_transport(trust_env=False, max_connections=1) as narrow:
        first = asyncio.create_task(post(narrow, server.url))
        await arrived.wait()
        with pytest.raises(ProviderTimeoutError) as raised:
            await post(narrow, server.url)
        assert not raised.value.sent
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert server.connections == 1


async def test_a_call_knows_whether_it_has_gone_out() -> None:
    arrived = asyncio.Event()

    async def stall(body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.readexactly(1)

    async def call(dispatch: Dispatch) -> None:
        current_dispatch.set(dispatch)
        await post(narrow, server.url)

    async with serving(stall) as server, open_transport(trust_env=False, max_connections=1) as narrow:
        sent, waits = Dispatch(), Dispatch()
        calls = [asyncio.create_task(call(dispatch)) for dispatch in (sent, waits)]
        await arrived.wait()
        assert (sent.waiting, waits.waiting) == (False, True)
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert (sent.waiting, waits.waiting) == (False, True)
    assert server.connections == 1


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


async def test_the_operators_proxy_is_used_but_not_where_excepted(no_proxies: pytest.MonkeyPatch) -> None:
    async with serving(OK) as proxy, serving(OK) as direct:
        no_proxies.setenv("http_proxy", f"http://user:pass@127.0.0.1:{proxy.port}")
        no_proxies.setenv("no_proxy", "127.0.0.1")
        async with open_transport() as transport:
            await post(transport, "http://vendor.test/x")
            await post(transport, direct.url)
    assert proxy.heads[0].startswith(b"POST http://vendor.test/x HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in proxy.heads[0]
    assert len(proxy.heads) == len(direct.heads) == 1


async def test_a_proxy_that_is_down_or_of_another_kind(no_proxies: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        no_proxies.setenv("all_proxy", f"http://user:pass@127.0.0.1:{taken.getsockname()[1]}")
        async with open_transport() as transport:
            with pytest.raises(ProviderUnavailableError) as raised:
                await post(transport, "https://vendor.test/x")
    assert not raised.value.sent
    assert "pass" not in str(raised.value)
    no_proxies.setenv("all_proxy", "socks5://user:pass@127.0.0.1")
    with pytest.raises(ValueError, match="ALL_PROXY") as refused:
        await open_transport().__aenter__()
    assert "pass" not in str(refused.value)


async def test_certificates_that_are_not_there(no_proxies: pytest.MonkeyPatch) -> None:
    no_proxies.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(ValueError, match="SSL_CERT_FILE"):
        await open_transport().__aenter__()
