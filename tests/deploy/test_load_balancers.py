"""The load balancers' configurations as they are shipped, with the real nginx and HAProxy in front of two servers."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest

from tests.e2e.callers import GONE, asking, calling, close_of, unverified
from tests.e2e.documents import COMPLETE, STREAM
from tests.e2e.processes import Server, Vendor, running_server, running_vendor, server_environment
from tests.e2e.test_cancellation import LEAVES_WITHIN_S, closed_in
from tests.servers.authority import new_authority
from tests.servers.missing import missing
from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
NAMES = ("app-1.internal", "app-2.internal")


@dataclass(frozen=True)
class Balancer:
    """`url` is the API's, through it."""

    url: str
    plain_port: int
    servers: Sequence[Server]


@dataclass(frozen=True)
class Kind:
    """How one is started. `configure` makes its configuration here from the shipped one."""

    binary: str
    shipped: str
    command: Callable[[Path], Sequence[str]]
    certificate: str

    def found(self) -> str:
        path = shutil.which(self.binary) or shutil.which(f"/usr/sbin/{self.binary}")
        return path or missing(f"there is no {self.binary}: apt-get install {self.binary}")


KINDS = {
    "nginx": Kind(
        "nginx", "nginx.conf", lambda file: ["-e", "stderr", "-g", "daemon off;", "-c", str(file)], "/etc/nginx/tls/"
    ),
    "haproxy": Kind("haproxy", "haproxy.cfg", lambda file: ["-db", "-f", str(file)], "/etc/haproxy/"),
}


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    with running_vendor() as started:
        yield started


@pytest.fixture(params=KINDS, scope="module")
def balancer(
    request: pytest.FixtureRequest, vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Balancer]:
    kind = KINDS[request.param]
    binary = kind.found()
    tmp_path = tmp_path_factory.mktemp(kind.binary)
    tls, plain = free_port(), free_port()
    common = server_environment(tmp_path, vendor, ENVIRONMENT="PRODUCTION")
    with ExitStack() as stack:
        servers, places = [], {":443": f"127.0.0.1:{tls}", ":80": f"127.0.0.1:{plain}"}
        for name in NAMES:
            environment = common | {"DATA_DIR": str(tmp_path / name), "INTERNAL_PORT": str(free_port())}
            servers.append(stack.enter_context(running_server(environment)))
            places[name] = f"{servers[-1].port} port {environment['INTERNAL_PORT']}"
        certificate = new_authority("balancers").write_server(tmp_path / "tls.pem")  # with its key
        for name in ("tls.crt", "tls.key"):
            (tmp_path / name).write_bytes(certificate.read_bytes())
        file = tmp_path / kind.shipped
        file.write_text(placed(kind, (ROOT / "deploy" / kind.shipped).read_text(), places, tmp_path))
        stack.enter_context(running([binary, *kind.command(file)], tls, tmp_path / "balancer.log"))
        yield Balancer(f"https://127.0.0.1:{tls}/graphql", plain, servers)


def placed(kind: Kind, text: str, places: Mapping[str, str], folder: Path) -> str:
    """The shipped configuration with this machine's ports and files. Each of them must be there to be put in."""
    for name in NAMES:
        port, _, internal = places[name].partition(" port ")
        text = (
            replaced(text, f"{name}:8080 port 8081", f"127.0.0.1:{port} port {internal}")
            if (kind.binary == "haproxy")
            else replaced(text, f"{name}:8080", f"127.0.0.1:{port}")
        )
    for public in (":443", ":80"):
        here = places[public]
        words = (
            (f"bind {public}", f"bind {here}")
            if kind.binary == "haproxy"
            else (f"listen {public[1:]}", f"listen {here}")
        )
        text = replaced(text, *words)
    text = replaced(text, kind.certificate, f"{folder}/")
    return text.replace("pid /run/nginx.pid;", f"pid {folder}/nginx.pid;")


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, old
    return text.replace(old, new)


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 30
            while not answers(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def answers(port: int) -> bool:
    try:
        return httpx.get(f"https://127.0.0.1:{port}/healthcheck", verify=False).status_code == 200
    except httpx.TransportError:
        return False


async def completed(session: aiohttp.ClientSession, balancer: Balancer, model: str) -> str:
    """One more completion's finishReason; never an error."""
    body = {"query": COMPLETE, "variables": {"input": asking(model, "[[tokens=1]]")}}
    async with session.post(balancer.url, json=body) as answer:
        assert answer.status == 200, await answer.text()
        reason: str = (await answer.json())["data"]["complete"]["finishReason"]
    return reason


async def test_events_come_as_they_are_produced_and_a_client_that_leaves_is_noticed(
    balancer: Balancer, vendor: Vendor
) -> None:
    model = f"left-{secrets.token_hex(4)}"
    headers = {"authorization": f"Bearer {balancer.servers[0].token(model)}", "accept": "text/event-stream"}
    call = {"query": STREAM, "variables": {"input": asking(model, "[[tokens=10]] [[hang=5]]")}}
    async with aiohttp.ClientSession(headers=headers, connector=unverified()) as session, asyncio.timeout(60):
        answer = await session.post(balancer.url, json=call)
        while b"TextDelta" not in await answer.content.readline():
            pass
        assert answer.connection is not None
        assert answer.connection.transport is not None
        answer.connection.transport.abort()
        assert await closed_in(vendor, "openai", model) < LEAVES_WITHIN_S


async def test_plain_http_is_sent_to_https(balancer: Balancer) -> None:
    async with aiohttp.ClientSession() as session:
        plain = f"http://127.0.0.1:{balancer.plain_port}/graphql"
        async with session.post(plain, json={}, allow_redirects=False) as answer:
            assert answer.status == 308
            there = urlsplit(answer.headers["location"])
            assert (there.scheme, there.hostname, there.path) == ("https", "127.0.0.1", "/graphql")


async def test_one_server_is_drained_while_streams_run_and_none_is_cut(balancer: Balancer, vendor: Vendor) -> None:
    drained, other = balancer.servers
    models = [f"drained-{secrets.token_hex(4)}" for _ in range(2)]
    token = other.token("drained")
    headers = {"authorization": f"Bearer {token}"}
    async with (
        asyncio.timeout(120),
        calling(balancer.url, token, vendor, models[0], tokens=200) as some,
        calling(balancer.url, token, vendor, models[1], tokens=200) as more,
        aiohttp.ClientSession(headers=headers, connector=unverified()) as session,
    ):
        drained.process.send_signal(signal.SIGTERM)
        running = asyncio.create_task(asyncio.to_thread(drained.process.wait, 60))
        while not running.done():
            assert await completed(session, balancer, models[0]) == "STOP"
        assert await running == 0
        for callers in (some, more):
            last, end = await callers.socket_end()
            assert (last["completion"]["finishReason"], end) == ("STOP", "complete")
            last, complete = await callers.events_end()
            assert (last["completion"]["finishReason"], complete) == ("STOP", True)
            assert (await callers.mutation)["data"]["complete"]["finishReason"] == "STOP"
        sockets = [some.socket, some.idle, more.socket, more.idle]
        closed = [await is_closed(socket) for socket in sockets]
        assert any(closed), "those of the drained server are told to come anew"
        assert await completed(session, balancer, models[1]) == "STOP"


async def is_closed(socket: aiohttp.ClientWebSocketResponse) -> bool:
    try:
        async with asyncio.timeout(0.2):
            return await close_of(socket) == GONE
    except TimeoutError:
        return False
