"""A Redis that goes away, comes back, asks for a password or speaks TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import redis

from persistence.ports import StoreUnavailableError
from persistence.redis import client, events
from persistence.redis.address import addresses_of
from persistence.redis.keys import name_of
from persistence.redis.server import RedisServer, open_redis
from persistence.shared_records import Demand, Replayed
from tests.servers.authority import new_authority
from tests.servers.ports import free_port
from tests.servers.proxy import proxy_to
from tests.servers.redis import Certificates, Node, redis_or_skip, running_cluster, running_redis


@pytest.fixture(autouse=True)
def server_is_here() -> None:
    redis_or_skip()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(events, "RECONNECT_S", 0.05)


async def heard(messages: object, talk: RedisServer, wanted: str) -> None:
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


async def tried(call: Callable[[], Awaitable[object]]) -> None:
    """Until it works."""
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreUnavailableError):
                await call()
                return
            await asyncio.sleep(0.05)


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


async def test_one_that_is_not_there_is_told_and_used_once_it_is() -> None:
    with running_redis() as node:
        node.stop()
        async with open_redis(node.uri) as server:
            assert (await server.look() or "").startswith("Redis: ")
            with pytest.raises(StoreUnavailableError):
                await server.values.read("acme", "k")
            with pytest.raises(StoreUnavailableError):
                async with server.events.listen("channel"):
                    pass
            node.start()
            assert await server.look() is None
            assert await server.values.claim("acme", "k", "v", seconds=9) is None
            async with server.events.listen("channel") as messages:
                await heard(messages, server, "here")


async def test_a_cluster_that_is_not_there_is_known_as_one_once_it_is() -> None:
    with running_cluster() as nodes:
        nodes[0].stop()
        async with open_redis(nodes[0].uri) as server:
            assert await server.look() is not None
            nodes[0].start()
            for organisation in "abcdef":  # of all three nodes, which take a moment to know it again
                await tried(partial(server.values.write, organisation, "k", "v", seconds=9))
            assert await server.look() is None


async def test_many_first_calls_find_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    found_out = client.RedisClient._found_out

    async def counted(self: client.RedisClient) -> client.Client:
        asked.append(1)
        return await found_out(self)

    monkeypatch.setattr(client.RedisClient, "_found_out", counted)
    with running_redis() as node:
        node.stop()
        async with open_redis(node.uri) as server:
            node.start()
            calls = [server.values.write("acme", f"{number}", "v", seconds=9) for number in range(200)]
            leaving = asyncio.create_task(server.values.read("acme", "k"))
            await asyncio.sleep(0)
            leaving.cancel()  # who leaves takes nothing from the others
            await asyncio.gather(*calls)
            assert len(asked) == 2


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1",
        "127.0.0.1:6379",
        "",
        "redis://",
        "redis:///0",
        "redis://:6379/0",
        "redis://:s3cret@:6379",
        "redis://h:0/0",
        "redis://h:65536",
        "redis://h:port",
        "redis://h:1,/0",
        "redis://h:1,other:0/0",
        "redis://h/main",
        "redis://h/-1",
        "redis://h:1/0#s3cret",
        "redis://u:s3/cret@h:1/0",
        "redis://a b/0",
    ],
)
async def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="an address is written redis://") as caught:
        async with open_redis(uri):
            pass
    assert "s3" not in str(caught.value)


@pytest.mark.parametrize("options", ["no_such=1", "socket_timeout=long", "db=main"])
async def test_an_option_that_is_none_is_refused(options: str) -> None:
    with pytest.raises(ValueError, match="has an option that is none, or has a wrong value"):
        async with open_redis(f"redis://127.0.0.1:1/0?{options}"):
            pass


async def test_connections_may_be_fewer() -> None:
    """More calls than connections wait for each other, and find no server that is away."""
    with running_redis() as node:
        async with open_redis(f"{node.uri}?max_connections=3") as server:
            await asyncio.gather(*(server.values.write("acme", f"{number}", "v", seconds=9) for number in range(100)))
            assert await server.look() is None


async def test_a_database_that_there_is_not_is_refused() -> None:
    with running_redis() as node:
        async with open_redis(f"{node.uri[:-1]}7") as server:
            assert await server.look() is None
        with pytest.raises(ValueError, match="it refuses: DB index is out of range"):
            async with open_redis(f"{node.uri[:-1]}99"):
                pass


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
async def test_authorities_that_can_t_be_read_are_told_at_once(tmp_path: Path, content: bytes | None) -> None:
    """And not taken for a server that is away."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"/ca\.pem can't be read as a file of certificates$"):
        async with open_redis("rediss://127.0.0.1:1/0", ca_file=path):
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


async def test_what_a_user_may_not_do_is_refused() -> None:
    with running_redis("--user", "default", "on", "nopass", "~*", "+@all", "-info") as node:
        opening = open_redis(node.uri)
        with pytest.raises(ValueError, match="it refuses: "):
            await opening.__aenter__()


async def test_a_wrong_password_of_one_that_was_not_there_is_told() -> None:
    with running_redis("--requirepass", "right") as node:
        node.stop()
        async with open_redis(node.uri.replace("//", "//:wr0ng@")) as server:
            node.start()
            told = await server.look() or ""
            assert told.startswith("Redis: it refuses: ")
            assert "wr0ng" not in told
            with pytest.raises(StoreUnavailableError, match="it refuses"):
                await server.values.read("acme", "k")
            with pytest.raises(StoreUnavailableError, match="it refuses"):
                async with server.events.listen("channel"):
                    pass


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    authority = new_authority("ours")
    return Certificates(authority.write_server(tmp_path / "server.pem"), authority.write(tmp_path / "ca.pem"))


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    return new_authority("another").write(tmp_path / "other.pem")


async def test_tls_with_its_own_authority(certificates: Certificates, strange: Path) -> None:
    with running_redis(tls=certificates) as node:
        async with open_redis(node.uri, ca_file=certificates.authority) as server:
            assert await server.values.claim("acme", "k", "v", seconds=9) is None
            async with server.events.listen("channel") as messages:
                await server.events.publish("channel", "hi")
                assert await asyncio.wait_for(anext(messages), 20) == "hi"
        await is_not_trusted(node, strange)


async def test_a_cluster_with_tls(certificates: Certificates, strange: Path) -> None:
    """Named by one node, and heard by any."""
    with running_cluster(tls=certificates) as nodes:
        async with open_redis(nodes[0].uri, ca_file=certificates.authority) as server:
            demand, told = Demand("calls", amount=1, limit=1, seconds=60), Replayed(1, "one")
            for organisation in "abcdef":  # of all three nodes
                assert await server.values.claim(organisation, "k", "v", seconds=9) is None
                assert await server.values.read(organisation, "k") == "v"
                assert await server.counters.take(organisation, [demand]) is None
                assert await server.counters.take(organisation, [demand]) is not None
                await server.replays.append(organisation, "s", [told], seconds=9)
                assert await server.replays.read(organisation, "s", after=0, limit=9) == [told]
            async with server.events.listen("channel") as messages:
                await server.events.publish("channel", "one")
                assert await anext(messages) == "one"
                nodes[0].kill()
                await heard(messages, server, "two")
        await is_not_trusted(nodes[1], strange)
        with pytest.raises(ValueError, match="it refuses: SELECT is not allowed in cluster mode"):
            async with open_redis(f"{nodes[1].uri[:-1]}1", ca_file=certificates.authority):
                pass


async def is_not_trusted(node: Node, strange: Path) -> None:
    """By who trusts another authority, or the system's alone. It is told, and nothing is sent."""
    for ca_file in (strange, None):
        async with open_redis(node.uri, ca_file=ca_file) as server:
            assert "CERTIFICATE_VERIFY_FAILED" in (await server.look() or "")
            with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                await server.values.claim("acme", "k", "v", seconds=9)
            with pytest.raises(StoreUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
                async with server.events.listen("channel"):
                    pass


async def test_one_behind_a_way_that_is_gone_without_a_word_is_heard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_S", 0.2)
    with running_redis() as node:
        async with (
            proxy_to(node.port) as proxy,
            open_redis(f"redis://127.0.0.1:{proxy.port}/0") as server,
            server.events.listen("channel") as messages,
        ):
            await server.events.publish("channel", "one")
            assert await anext(messages) == "one"
            proxy.swallow()
            await heard(messages, server, "two")


async def test_a_quiet_channel_is_not_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_S", 0.05)
    with running_redis() as node:
        async with (
            proxy_to(node.port) as proxy,
            open_redis(f"redis://127.0.0.1:{proxy.port}/0") as server,
            server.events.listen("channel") as messages,
        ):
            opened = proxy.opened
            await asyncio.sleep(0.5)
            await server.events.publish("channel", "one")
            assert await anext(messages) == "one"
            assert proxy.opened <= opened + 1, "but for the one that publishes"


async def test_a_cluster_is_heard_though_the_node_that_was_named_is_gone() -> None:
    """Also on a channel whose name would be a key of that node."""
    with running_cluster() as nodes:
        async with open_redis(nodes[0].uri) as server, server.events.listen("channel") as messages:
            await server.events.publish("channel", "one")
            assert await anext(messages) == "one"
            with redis.Redis(port=nodes[0].port) as asking:
                asking.exists(name_of("channel", None, "channel"))  # which of another node it would refuse
            nodes[0].kill()
            await heard(messages, server, "two")


async def test_a_cluster_is_found_though_a_node_that_was_named_is_gone() -> None:
    with running_cluster() as nodes:
        async with open_redis(f"redis://127.0.0.1:{free_port()},127.0.0.1:{nodes[1].port}/0") as server:
            assert await server.look() is None
            async with server.events.listen("channel") as messages:
                await server.events.publish("channel", "one")
                assert await anext(messages) == "one"
            for organisation in "abcdef":  # of all three nodes
                await server.values.write(organisation, "k", "v", seconds=9)


async def test_nodes_are_named_before_their_cluster_is_there() -> None:
    with running_cluster() as nodes:
        for node in nodes:
            node.stop()
        async with open_redis(f"redis://127.0.0.1:{free_port()},127.0.0.1:{nodes[1].port}/0") as server:
            assert await server.look() is not None
            with pytest.raises(StoreUnavailableError):
                async with server.events.listen("channel"):
                    pass
            for node in nodes:
                node.start()
            await tried(partial(server.values.write, "acme", "k", "v", seconds=9))
            async with server.events.listen("channel") as messages:
                await heard(messages, server, "here")


async def test_several_addresses_are_those_of_one_cluster() -> None:
    with running_redis() as one, running_redis() as other, pytest.raises(ValueError, match="are a cluster's"):
        async with open_redis(f"redis://127.0.0.1:{one.port},127.0.0.1:{other.port}/0"):
            pass


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("redis://one:1", ["redis://one:1"]),
        ("rediss://u:p%40w@one:1,two:2/3?x=1", ["rediss://u:p%40w@one:1/3?x=1", "rediss://u:p%40w@two:2/3?x=1"]),
        ("redis://:pw@[::1]:1,[::2]:2/0", ["redis://:pw@[::1]:1/0", "redis://:pw@[::2]:2/0"]),
    ],
)
def test_addresses_in_one(uri: str, found: list[str]) -> None:
    assert addresses_of(uri) == found
