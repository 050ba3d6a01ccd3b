"""Counters and replays on a Redis that forgets its scripts, and on a cluster that loses a node."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
import redis

from persistence.ports import StoreUnavailableError
from persistence.redis import client
from persistence.redis.keys import name_of
from persistence.redis.server import open_redis
from persistence.shared_records import Demand, Replayed
from tests.servers.redis import Node, redis_or_skip, running_cluster, running_redis

DEMAND = Demand("calls", amount=1, limit=10, seconds=60)
ORGANISATIONS = ("acme", "a}b", "{acme}", "{", "}", "{}", "", "%", "a:b", "é")


@pytest.fixture(autouse=True)
def server_is_here() -> None:
    redis_or_skip()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sequence[Node]]:
    redis_or_skip()
    with running_cluster() as nodes:
        yield nodes


def of_operator(key: str) -> Demand:
    return Demand(key, amount=1, limit=10, seconds=60, of_operator=True)


def is_on(node: Node, name: str) -> bool:
    with redis.Redis(port=node.port) as asking:
        try:
            asking.exists(name)
        except redis.exceptions.MovedError:
            return False
        return True


async def left(server: object, demand: Demand, organisation: str = "acme") -> int:
    much = Demand(demand.key, demand.limit + 1, demand.limit, demand.seconds, demand.of_operator)
    shortage = await server.counters.take(organisation, [much])  # type: ignore[attr-defined]
    assert shortage is not None
    return int(shortage.left)


async def test_a_server_that_has_forgotten_its_scripts() -> None:
    with running_redis() as node:
        async with open_redis(node.uri) as server:
            assert await server.counters.take("acme", [DEMAND]) is None
            with redis.Redis(port=node.port) as other:
                other.script_flush()
            assert await server.counters.take("acme", [DEMAND]) is None
            await server.counters.give("acme", [DEMAND])
            assert await left(server, DEMAND) == 9


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_server_that_was_started_anew(how: str) -> None:
    with running_redis() as node:
        async with open_redis(node.uri) as server:
            assert await asyncio.gather(*(server.counters.take("acme", [DEMAND]) for _ in range(10))) == [None] * 10
            getattr(node, how)()
            with pytest.raises(StoreUnavailableError):
                await server.counters.take("acme", [DEMAND])
            node.start()
            assert await asyncio.gather(*(server.counters.take("acme", [DEMAND]) for _ in range(10))) == [None] * 10
            await server.replays.append("acme", "s", [Replayed(0, "e")], seconds=60)
            assert await server.replays.read("acme", "s", after=-1, limit=1) == [Replayed(0, "e")]


async def test_taking_is_one_round_trip() -> None:
    with running_redis() as node, redis.Redis(port=node.port, decode_responses=True) as asking:
        async with open_redis(node.uri) as server:
            await server.counters.take("acme", [DEMAND])
            asking.config_resetstat()
            await server.counters.take("acme", [DEMAND, Demand("tokens", 500, 1000, 60), of_operator("all")])
            commands = {name: about["calls"] for name, about in asking.info("commandstats").items()}
    inside = {"cmdstat_get", "cmdstat_set", "cmdstat_incrby"}
    assert {name: calls for name, calls in commands.items() if name not in inside} == {
        "cmdstat_evalsha": 1,
        "cmdstat_config|resetstat": 1,
    }


async def test_every_key_lives_no_longer_than_its_time() -> None:
    with running_redis() as node, redis.Redis(port=node.port) as asking:
        async with open_redis(node.uri) as server:
            for _ in range(2):
                await server.counters.take("acme", [DEMAND, of_operator("all")])
                await server.counters.give("acme", [DEMAND])
                await server.replays.append("acme", "s", [Replayed(0, "e")], seconds=60)
                await server.values.write("acme", "k", "v", seconds=60)
        times = [asking.ttl(key) for key in asking.scan_iter()]
    assert len(times) == 4
    assert all(0 < time <= 60 for time in times)


@pytest.mark.parametrize("organisation", ORGANISATIONS)
async def test_an_organisations_keys_share_a_slot(cluster: Sequence[Node], organisation: str) -> None:
    names = [
        name_of(kind, organisation, key)
        for kind in ("counter", "value")
        for key in ("a", "b", "{c}", "}", "{", "{}", ":", "")
    ]
    with redis.Redis(port=cluster[0].port) as asking:
        assert len({asking.cluster("keyslot", name) for name in names}) == 1
    assert len(set(names)) == len(names)


def test_no_two_names_meet() -> None:
    parts = ("acme", "{acme}", "}", "{", "{}", "", "%", "%7D", ":", "counter", "{acme}:counter:k", "k")
    names = [
        name_of(kind, organisation, key)
        for kind in ("counter", "value", "replay", "channel")
        for organisation in (None, *parts)
        for key in parts
    ]
    assert len(set(names)) == len(names)


async def test_where_the_operators_node_says_nothing_the_organisation_gets_back_what_it_took(
    cluster: Sequence[Node],
) -> None:
    key = "undone"
    node = next(one for one in cluster if not is_on(one, name_of("counter", "acme", key)))
    all_of_it = next(
        one for one in (f"all-{number}" for number in range(100)) if is_on(node, name_of("counter", None, one))
    )
    other = next(one for one in cluster if one is not node)
    own = Demand(key, amount=1, limit=10, seconds=60)
    async with open_redis(other.uri) as server:
        with node.frozen(), pytest.raises(StoreUnavailableError):
            await server.counters.take("acme", [own, of_operator(all_of_it)])
        assert await left(server, own) == 10


async def test_keys_that_move_to_another_node_are_followed() -> None:
    """All slots of one node go to the two others while processes count."""
    with running_cluster() as nodes:
        async with open_redis(nodes[0].uri) as server:
            organisations = [f"org-{number}" for number in range(60)]
            for organisation in organisations:
                assert await server.counters.take(organisation, [DEMAND]) is None
                await server.values.write(organisation, "k", organisation, seconds=60)
            leaving = name_of_node(nodes[1])
            moving = await asyncio.create_subprocess_exec(
                *("redis-cli", "--cluster", "rebalance", f"127.0.0.1:{nodes[0].port}"),
                *("--cluster-weight", f"{leaving}=0", "--cluster-pipeline", "100"),
                stdout=asyncio.subprocess.DEVNULL,
            )
            taken = 1
            while moving.returncode is None and taken < 9:
                for organisation in organisations:
                    assert await server.counters.take(organisation, [DEMAND]) is None
                    assert await server.values.read(organisation, "k") == organisation
                taken += 1
            async with asyncio.timeout(60):
                assert await moving.wait() == 0
            with redis.Redis(port=nodes[1].port) as asking:
                assert asking.dbsize() == 0
            for organisation in organisations:
                assert await left(server, DEMAND, organisation) == 10 - taken


def name_of_node(node: Node) -> str:
    with redis.Redis(port=node.port, decode_responses=True) as asking:
        return str(asking.cluster("myid"))


async def test_a_node_that_is_killed_is_told_in_time() -> None:
    with running_cluster() as nodes:
        async with open_redis(nodes[0].uri) as server:
            for organisation in ORGANISATIONS:
                assert await server.counters.take(organisation, [DEMAND]) is None
            nodes[1].kill()
            away = 0
            for organisation in ORGANISATIONS:
                begun = asyncio.get_running_loop().time()
                try:
                    await server.counters.take(organisation, [DEMAND])
                except StoreUnavailableError:
                    away += 1
                assert asyncio.get_running_loop().time() - begun < 2
            assert away
            begun = asyncio.get_running_loop().time()
            answers = await asyncio.gather(
                *(server.counters.take(f"{number}", [DEMAND]) for number in range(200)), return_exceptions=True
            )
            assert {type(answer) for answer in answers} <= {type(None), StoreUnavailableError}
            assert any(answers)
            assert asyncio.get_running_loop().time() - begun < 3
