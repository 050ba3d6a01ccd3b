"""Servers with their configs and price rules on a real MongoDB, which is killed, stopped and frozen, and fails over,
while completions by config run: these go on, and what was acknowledged is there."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from persistence.mongo.client import NEEDED
from tests.servers.mongo import Mongo, Node, empty_database, migrated_database, running_mongo

from .documents import COMPLETE
from .processes import Server, post, running_server, server_environment
from .test_cli import command
from .test_configs import CREATE, publish
from .test_prices import DISCOUNT

ORGANISATION = "acme"
DRAFT = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "hello"}]}
UPDATE = "mutation ($input: UpdateConfigInput!) { updateConfig(input: $input) { revision } }"
PUBLISH = "mutation ($input: PublishConfigInput!) { publishConfig(input: $input) { revision publishedVersion } }"
CONFIGS = "query ($first: Int!, $after: String) { configs(first: $first, after: $after) {" + (
    " nodes { slug revision publishedVersion } pageInfo { hasNextPage endCursor } } }"
)
LONGEST_ANSWER_S = 5.0
"""A look-up of three seconds, and a machine with more to do."""


@pytest.fixture(scope="module")
def mongo() -> Iterator[Mongo]:
    with running_mongo() as started:
        yield started


@pytest.fixture
async def database(mongo: Mongo) -> str:
    return await migrated_database(mongo)


def environment(folder: Path, uri: str, **more: str) -> dict[str, str]:
    return server_environment(folder, None, MONGODB_CONNECTION_URI=uri, **more)


@pytest.fixture
def server(database: str, tmp_path: Path) -> Iterator[Server]:
    with running_server(environment(tmp_path, database, MONGODB_TIMEOUT_S="1")) as started:
        yield started


def readiness(server: Server) -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{server.port}/readyz", timeout=30)
    return answer.status_code, answer.text


def ready(server: Server) -> None:
    until = time.monotonic() + 30
    while (found := readiness(server)) != (200, "ready\n"):
        assert time.monotonic() < until, found


def ask(server: Server, query: str, asked: dict[str, Any], organisation: str = ORGANISATION) -> dict[str, Any]:
    return post(server, server.token(organisation), query, {"input": asked})


def by_config(server: Server, slug: str = "greet", organisation: str = ORGANISATION) -> dict[str, Any]:
    return ask(server, COMPLETE, {"config": {"slug": slug}}, organisation)


def direct(server: Server, organisation: str = ORGANISATION) -> dict[str, Any]:
    asked = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "hello"}]}
    return ask(server, COMPLETE, asked, organisation)


def code(answer: dict[str, Any]) -> str:
    found: str = answer["errors"][0]["extensions"]["code"]
    return found


def content(answer: dict[str, Any]) -> str:
    found: str = answer["data"]["complete"]["content"]
    return found


def cost_source(answer: dict[str, Any]) -> str:
    found: str = answer["data"]["complete"]["usage"]["costSource"]
    return found


def publish_anew(server: Server, text: str, revision: int) -> None:
    """A version of `greet` that says `text`."""
    draft = {**DRAFT, "messages": [{"role": "USER", "content": text}]}
    asked = {"by": {"slug": "greet"}, "draft": draft, "expectedRevision": revision}
    assert ask(server, UPDATE, asked)["data"]["updateConfig"] == {"revision": revision + 1}
    assert ask(server, PUBLISH, {"by": {"slug": "greet"}})["data"]["publishConfig"]["publishedVersion"] == 2


def seen(condition: Callable[[], bool]) -> float:
    """Seconds until it holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + 10
    return time.monotonic() - began


def configs(server: Server) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    after = None
    while True:
        answer = post(server, server.token(ORGANISATION), CONFIGS, {"first": 100, "after": after})
        page = answer["data"]["configs"]
        found |= {node["slug"]: node for node in page["nodes"]}
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            return found


def test_a_second_process_sees_a_change_within_a_second(server: Server, database: str, tmp_path: Path) -> None:
    """Both have read config and price rules a moment ago, and would go by that for five seconds and for a minute."""
    publish(server, server.token(ORGANISATION), "greet", DRAFT)
    with running_server(environment(tmp_path / "other", database)) as other:
        assert content(by_config(other)) == "You said: hello"
        publish_anew(server, "hello again", 2)
        assert seen(lambda: content(by_config(other)) == "You said: hello again") < 1
        assert cost_source(by_config(other)) == "PRICE_TABLE"
        assert ask(server, DISCOUNT, {"percent": "50"})["data"]["createDiscount"]["id"]
        assert seen(lambda: cost_source(by_config(other)) == "ORGANISATION") < 1


def test_migrate_and_what_is_said_before_it(mongo: Mongo, tmp_path: Path) -> None:
    variables = environment(tmp_path, empty_database(mongo))
    with running_server(variables) as server:
        status, text = readiness(server)
        assert (status, f"MongoDB (the database has no schema, this release needs {NEEDED}: run" in text) == (503, True)
        assert code(ask(server, CREATE, {"slug": "greet", "draft": DRAFT})) == "SERVICE_UNAVAILABLE"
        for _ in range(2):
            done = command("migrate", environment=variables)
            assert (done.returncode, "MongoDB is up to date" in done.stdout) == (0, True)
        ready(server)
        publish(server, server.token(ORGANISATION), "greet", DRAFT)
        assert content(by_config(server)) == "You said: hello"


def test_while_it_is_away(server: Server, mongo: Mongo) -> None:
    """The design's row of it: known configs and direct models go on, the rest is refused, nothing is half-written."""
    [node] = mongo.nodes
    publish(server, server.token(ORGANISATION), "greet", DRAFT)
    publish(server, server.token(ORGANISATION), "unseen", DRAFT)
    assert content(by_config(server)) == "You said: hello"
    node.kill()
    for _ in range(3):
        assert content(by_config(server)) == "You said: hello"
        assert cost_source(direct(server)) == "PRICE_TABLE"
    stranger = direct(server, "org-never-seen")["data"]["complete"]
    assert (stranger["content"], stranger["usage"]["cost"]) == ("You said: hello", None), "nobody knows its prices"
    assert code(by_config(server, "unseen")) == "SERVICE_UNAVAILABLE"
    assert code(ask(server, CREATE, {"slug": "new", "draft": DRAFT})) == "SERVICE_UNAVAILABLE"
    assert code(ask(server, PUBLISH, {"by": {"slug": "greet"}})) == "SERVICE_UNAVAILABLE"
    assert code(ask(server, DISCOUNT, {"percent": "50"})) == "SERVICE_UNAVAILABLE"
    assert readiness(server) == (200, "ready, without MongoDB (MongoDB: no primary can be reached)\n")
    mongo.restart(node)
    ready(server)
    assert {slug: node["revision"] for slug, node in configs(server).items()} == {"greet": 2, "unseen": 2}
    assert ask(server, PUBLISH, {"by": {"slug": "greet"}})["data"]["publishConfig"]["publishedVersion"] == 2
    assert content(by_config(server, "unseen")) == "You said: hello"


def test_a_start_while_it_is_away(mongo: Mongo, database: str, tmp_path: Path) -> None:
    [node] = mongo.nodes
    node.kill()
    with running_server(environment(tmp_path, database)) as server:
        assert readiness(server) == (503, "missing: MongoDB (MongoDB: no primary can be reached)\n"), "never seen yet"
        assert content(direct(server)) == "You said: hello"
        mongo.restart(node)
        ready(server)
        publish(server, server.token(ORGANISATION), "greet", DRAFT)
        assert content(by_config(server)) == "You said: hello"


def kill(mongo: Mongo, node: Node) -> None:
    node.kill()
    subprocess.run(["sleep", "1"], check=True)
    mongo.restart(node)


def stop(mongo: Mongo, node: Node) -> None:
    node.stop()
    subprocess.run(["sleep", "1"], check=True)
    mongo.restart(node)


def freeze(_: Mongo, node: Node) -> None:
    """For longer than a call may take, and than a config is fresh."""
    with node.frozen():
        subprocess.run(["sleep", "6"], check=True)


@asynccontextmanager
async def completing(server: Server, answers: list[float]) -> AsyncIterator[None]:
    """Completions by config, four at a time: each is an answer. How long each took, in seconds."""
    asked = {"config": {"slug": "greet"}}
    enough = asyncio.Event()

    async def client(session: aiohttp.ClientSession) -> None:
        while not enough.is_set():
            began = time.monotonic()
            async with session.post(server.url, json={"query": COMPLETE, "variables": {"input": asked}}) as answer:
                body = await answer.json()
            assert "errors" not in body, body["errors"]
            assert content(body) == "You said: hello"
            answers.append(time.monotonic() - began)

    headers = {"authorization": f"Bearer {server.token(ORGANISATION)}"}
    async with asyncio.timeout(90), aiohttp.ClientSession(headers=headers) as session, asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client(session))
        try:
            yield
        finally:
            enough.set()


async def acknowledged(server: Server, until: asyncio.Event) -> tuple[set[str], int]:
    """Configs made and published, one after the other: those that were acknowledged, and how many were refused."""
    made: set[str] = set()
    refused = 0
    while not until.is_set():
        slug = f"made-{len(made) + refused}"
        answer = await asyncio.to_thread(ask, server, CREATE, {"slug": slug, "draft": DRAFT})
        if "errors" not in answer:
            answer = await asyncio.to_thread(ask, server, PUBLISH, {"by": {"slug": slug}})
        if "errors" in answer:
            assert code(answer) == "SERVICE_UNAVAILABLE"
            refused += 1
        else:
            made.add(slug)
    return made, refused


async def disturbed(server: Server, disturb: Callable[[], None]) -> tuple[list[float], set[str], int]:
    answers: list[float] = []
    over = asyncio.Event()
    async with completing(server, answers):
        writing = asyncio.create_task(acknowledged(server, over))
        await asyncio.to_thread(disturb)
        over.set()
        made, refused = await writing
    return answers, made, refused


@pytest.mark.parametrize("disturb", [kill, stop, freeze])
async def test_completions_by_config_go_on_and_what_was_acknowledged_is_there(
    server: Server, mongo: Mongo, disturb: Callable[[Mongo, Node], None]
) -> None:
    publish(server, server.token(ORGANISATION), "greet", DRAFT)
    by_config(server)
    answers, made, _ = await disturbed(server, lambda: disturb(mongo, mongo.nodes[0]))
    assert len(answers) > 20
    assert max(answers) < LONGEST_ANSWER_S
    ready(server)
    standing = configs(server)
    assert made <= standing.keys()
    assert {slug for slug in made if standing[slug]["publishedVersion"] != 1} == set()


async def test_another_node_takes_over(tmp_path: Path) -> None:
    """Three nodes, whose primary is killed: completions go on, and writes wait for the election instead of failing."""
    with running_mongo(nodes=3) as mongo:
        uri = await migrated_database(mongo)
        with running_server(environment(tmp_path, uri)) as server:
            publish(server, server.token(ORGANISATION), "greet", DRAFT)
            by_config(server)

            def fail_over() -> None:
                old = mongo.primary()
                old.kill()
                assert mongo.primary() is not old

            answers, made, refused = await disturbed(server, fail_over)
            assert max(answers) < LONGEST_ANSWER_S
            assert refused == 0
            assert made <= configs(server).keys()
            ready(server)
