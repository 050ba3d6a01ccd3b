"""Who listens to events over Redis, and by which connection."""

from __future__ import annotations

import asyncio
import socket

import pytest
import redis

from persistence.redis.server import RedisServer, open_redis
from tests.servers.ports import free_port
from tests.servers.redis import redis_or_skip, running_redis


@pytest.fixture(autouse=True)
def server_is_here() -> None:
    redis_or_skip()


async def heard(server: RedisServer, channel: str) -> str:
    """What is sent as soon as it is listened to."""
    async with asyncio.timeout(20), server.events.listen(channel) as messages:
        await server.events.publish(channel, f"to {channel}")
        return await anext(messages)


async def test_many_first_listeners_share_one_connection() -> None:
    async with open_redis(redis_or_skip().uri) as server:
        channels = [f"{number}" for number in range(20)]
        assert await asyncio.gather(*(heard(server, channel) for channel in channels)) == [
            f"to {channel}" for channel in channels
        ]


async def test_many_first_listeners_of_one_that_comes_back() -> None:
    """Nothing of those that listened in vain is in their way."""
    with running_redis() as node:
        node.stop()
        async with open_redis(node.uri) as server:
            for _ in range(2):
                told = await asyncio.gather(*(heard(server, f"{each}") for each in range(20)), return_exceptions=True)
                assert {"refused" in str(each) or "111" in str(each) for each in told} == {True}, told
            node.start()
            assert len(await asyncio.gather(*(heard(server, f"{each}") for each in range(20)))) == 20


async def test_a_cluster_whose_nodes_are_known_by_addresses_of_ipv6() -> None:
    listening = ("--bind", "127.0.0.1", "-::1", "--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with running_redis(*listening) as node:
        with redis.Redis.from_url(node.uri) as own:
            own.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        with socket.socket(socket.AF_INET6) as probe:
            if probe.connect_ex(("::1", node.port)) != 0:
                pytest.skip("this machine has no IPv6")
        async with open_redis(f"redis://[::1]:{node.port}/0") as server:
            assert await heard(server, "channel") == "to channel"
