"""A Redis that goes away, comes back, asks for a password or speaks TLS."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from persistence import redis
from persistence.ports import StoreUnavailableError
from persistence.redis import open_redis
from tests.servers.authority import new_authority
from tests.servers.redis import Node, free_port, redis_or_skip, running_redis


@pytest.fixture(autouse=True)
def server_is_here() -> None:
    redis_or_skip()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(redis, "RECONNECT_S", 0.05)


async def heard(messages: object, talk: redis.RedisServer, wanted: str) -> None:
    """Until the message comes through: what is sent while nobody listens is lost."""

    async def ask() -> None:
        while True:
            with suppress(StoreUnavailableError):
                await talk.events.publish("channel", wanted)
            await asyncio.sleep(0.05)

    asking = asyncio.create_task(ask())
    try:
        async with asyncio.timeout(10):
            while await anext(messages) != wanted:  # type: ignore[call-overload]
                pass
    finally:
        asking.cancel()
        await asyncio.wait([asking])


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_one_that_comes_back_is_used_and_heard_again(how: str) -> None:
    with running_redis() as node:
        async with open_redis(node.uri) as server, server.events.listen("channel") as messages:
            assert await server.look() is None
            getattr(node, how)()
            with pytest.raises(StoreUnavailableError, match=r"^Redis: "):
                await server.values.read("acme", "k")
            with pytest.raises(StoreUnavailableError):
                await server.events.publish("channel", "lost")
            assert (await server.look() or "").startswith("Redis: ")
            node.start()
            assert await server.values.claim("acme", "k", "v", seconds=9) is None
            await heard(messages, server, "again")


async def test_one_that_answers_nothing_is_given_up_in_time() -> None:
    with running_redis() as node:
        async with open_redis(node.uri) as server:
            with node.frozen():
                begun = asyncio.get_running_loop().time()
                with pytest.raises(StoreUnavailableError):
                    await server.values.read("acme", "k")
                assert asyncio.get_running_loop().time() - begun < 2
            assert await server.values.read("acme", "k") is None


async def test_one_that_is_not_there_is_told() -> None:
    with pytest.raises(StoreUnavailableError):
        async with open_redis(f"redis://127.0.0.1:{free_port()}"):
            pass


@pytest.mark.parametrize("uri", ["http://127.0.0.1", "127.0.0.1:6379", ""])
async def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="begins with redis://"):
        async with open_redis(uri):
            pass


async def test_a_wrong_password_is_refused_and_told_to_nobody() -> None:
    with running_redis("--requirepass", "right") as node:
        async with open_redis(node.uri.replace("//", "//:right@")) as server:
            assert await server.look() is None
        for uri in (node.uri, node.uri.replace("//", "//:wr0ng@")):
            with pytest.raises(ValueError, match="it refuses: ") as caught:
                async with open_redis(uri):
                    pass
            assert "wr0ng" not in str(caught.value)


async def test_tls_with_its_own_authority(tmp_path: Path) -> None:
    authority, other = new_authority("ours"), new_authority("another")
    pem = authority.write_server(tmp_path / "server.pem")
    trusted, strange = authority.write(tmp_path / "ca.pem"), other.write(tmp_path / "other.pem")
    port = free_port()
    tls = ("--tls-cert-file", str(pem), "--tls-key-file", str(pem), "--tls-auth-clients", "no")
    node = Node(tmp_path / "redis", port, ("--port", "0", "--tls-port", str(port), *tls), scheme="rediss")
    node.start()
    try:
        async with open_redis(node.uri, ca_file=trusted) as server:
            assert await server.values.claim("acme", "k", "v", seconds=9) is None
            async with server.events.listen("channel") as messages:
                await server.events.publish("channel", "hi")
                assert await asyncio.wait_for(anext(messages), 5) == "hi"
        with pytest.raises(StoreUnavailableError):
            async with open_redis(node.uri, ca_file=strange):
                pass
    finally:
        node.kill()
