"""What may be asked, over real sockets: limits, costs and registered documents, the same on each transport."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import httpx
import orjson
import pytest

from resolvers.trusted_documents import hash_of

from .documents import STREAM
from .processes import Server, Vendor, running_server, server_environment
from .raw_socket import raw_socket
from .test_cli import command

VIEWER = "query Viewer { viewer { organisation } }"
OTHER = "query Other { viewer { subject } }"
TYPENAME = "mutation Typename { __typename }"


class Transport(Protocol):
    """Sends a call and gives back the answer, or what stands in its place."""

    async def __call__(self, server: Server, token: str, call: dict[str, Any]) -> dict[str, Any]: ...


async def by_post(server: Server, token: str, call: dict[str, Any]) -> dict[str, Any]:
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(server.url, json=call, headers={"authorization": f"Bearer {token}"})
    found: dict[str, Any] = answer.json()
    return found


async def by_get(server: Server, token: str, call: dict[str, Any]) -> dict[str, Any]:
    query = {name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in call.items()}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.get(server.url, params=query, headers={"authorization": f"Bearer {token}"})
    found: dict[str, Any] = answer.json()
    return found


async def by_events(server: Server, token: str, call: dict[str, Any]) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {token}", "accept": "text/event-stream"}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await client.post(server.url, json=call, headers=headers)
    body = answer.text
    if "data: " in body:
        body = next(line for line in body.splitlines() if line.startswith("data: ")).removeprefix("data: ")
    found: dict[str, Any] = orjson.loads(body)
    return found


async def by_socket(server: Server, token: str, call: dict[str, Any]) -> dict[str, Any]:
    url = server.url.replace("http", "ws", 1)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, protocols=("graphql-transport-ws",)) as socket,
    ):
        await socket.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert (await socket.receive_json(timeout=30))["type"] == "connection_ack"
        await socket.send_json({"id": "1", "type": "subscribe", "payload": call})
        message = await socket.receive_json(timeout=30)
    return {"errors": message["payload"]} if message["type"] == "error" else dict(message["payload"])


TRANSPORTS = [
    pytest.param(by_post, id="POST"),
    pytest.param(by_get, id="GET"),
    pytest.param(by_events, id="SSE"),
    pytest.param(by_socket, id="WebSocket"),
]


def code(answer: dict[str, Any]) -> str:
    assert answer.get("data") is None
    found: str = answer["errors"][0]["extensions"]["code"]
    return found


@dataclass
class Guarded:
    """A server as in production, that runs registered documents alone and lets each caller spend little."""

    server: Server
    environment: dict[str, str]


@pytest.fixture(scope="module")
def guarded(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder: Path = tmp_path_factory.mktemp("guarded")
    environment = server_environment(folder, vendor) | {"TRUSTED_DOCUMENTS": "true", "INTROSPECTION": "false"}
    with running_server(environment) as started:
        found = Guarded(started, environment)
        register(found, VIEWER, TYPENAME, STREAM)
        yield found


def register(guarded: Guarded, *texts: str) -> None:
    manifest = guarded.server.folder / f"{hash_of(''.join(texts))}.json"
    manifest.write_bytes(orjson.dumps({hash_of(text): text for text in texts}))
    environment = guarded.environment | {"PATH": os.environ["PATH"]}
    done = command("documents", "register", str(manifest), environment=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("ask", TRANSPORTS)
async def test_registered_documents_alone_are_run(guarded: Guarded, ask: Transport) -> None:
    server, token = guarded.server, guarded.server.token("acme")
    apollo = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash_of(VIEWER)}}}
    for call in (
        {"documentId": f"sha256:{hash_of(VIEWER)}"},
        {"documentId": hash_of(VIEWER)},
        apollo,
        apollo | {"query": VIEWER},
        {"query": VIEWER},
    ):
        assert (await ask(server, token, call))["data"] == {"viewer": {"organisation": "acme"}}
    for call in (
        {"query": OTHER},
        {"query": VIEWER + " "},
        {"documentId": hash_of(OTHER)},
        {"query": OTHER, "documentId": hash_of(OTHER)},
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash_of(OTHER)}}},
        {"query": "{ __typename }"},
        {"query": "subscription { providerHealth { name } }"},
    ):
        assert code(await ask(server, token, call)) == "PERSISTED_QUERY_NOT_FOUND"
    for call in (
        {"query": OTHER, "documentId": hash_of(VIEWER)},
        {"documentId": "sha256:abc"},
        {"extensions": {"persistedQuery": {"version": 2, "sha256Hash": hash_of(VIEWER)}}},
        {"extensions": {"persistedQuery": []}},
        apollo | {"documentId": hash_of(VIEWER)},
    ):
        assert code(await ask(server, token, call)) == "BAD_USER_INPUT"
    mutation = await ask(server, token, {"documentId": hash_of(TYPENAME)})
    if ask is by_get:
        assert code(mutation) == "BAD_USER_INPUT"
    else:
        assert mutation["data"] == {"__typename": "Mutation"}


@pytest.mark.parametrize("ask", [by_events, by_socket])
async def test_a_subscription_is_run_by_its_hash_too(guarded: Guarded, ask: Transport) -> None:
    asked = {"model": "openai/gpt-4o-mini", "messages": [{"role": "USER", "content": "Hi [[tokens=2]]"}]}
    first = await ask(
        guarded.server, guarded.server.token("acme"), {"documentId": hash_of(STREAM), "variables": {"input": asked}}
    )
    assert first["data"]["completionStream"]["__typename"] == "CompletionStarted"
    assert first["extensions"]["cost"]["requestedQueryCost"] >= 10


async def test_a_server_learns_of_a_registration_and_of_a_removal_within_seconds(guarded: Guarded) -> None:
    text = "query Late { viewer { subject organisation } }"
    server, token = guarded.server, guarded.server.token("acme")
    call = {"documentId": hash_of(text)}
    assert code(await by_post(server, token, call)) == "PERSISTED_QUERY_NOT_FOUND"
    register(guarded, text)
    environment = guarded.environment | {"PATH": os.environ["PATH"]}
    listed = command("documents", "list", environment=environment).stdout
    assert f"{hash_of(text)}  {time.strftime('%Y')}" in listed
    assert " Late\n" in listed
    await _until_code(server, token, call, None)
    assert command("documents", "remove", hash_of(text), environment=environment).stdout == "removed 1\n"
    await _until_code(server, token, call, "PERSISTED_QUERY_NOT_FOUND")
    again = command("documents", "remove", hash_of(text), environment=environment)
    assert again.returncode == 1
    assert f"not registered: {hash_of(text)}" in again.stderr


async def _until_code(server: Server, token: str, call: dict[str, Any], wanted: str | None) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = await by_post(server, token, call)
        if (code(answer) if "errors" in answer else None) == wanted:
            return
        await asyncio.sleep(0.2)
    pytest.fail(f"not {wanted} within 30 seconds")


def test_what_the_schema_does_not_take_is_not_registered(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "good.graphql").write_text("{ viewer { scopes } }")
    (tmp_path / "bad.graphql").write_text("{ viewer { missing } }")
    environment = guarded.environment | {"PATH": os.environ["PATH"]}
    done = command("documents", "register", str(tmp_path), environment=environment)
    assert done.returncode == 1
    assert "bad.graphql: Cannot query field 'missing' on type 'Viewer'." in done.stderr
    assert hash_of("{ viewer { scopes } }") not in command("documents", "list", environment=environment).stdout


@pytest.mark.parametrize("ask", TRANSPORTS)
async def test_without_that_a_hash_may_stand_for_its_document(server: Server, token: str, ask: Transport) -> None:
    apollo = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash_of(VIEWER)}}}
    assert code(await ask(server, token, apollo)) == "PERSISTED_QUERY_NOT_FOUND"
    answer = await ask(server, token, apollo | {"query": VIEWER})
    assert answer["data"]["viewer"]
    cost = answer["extensions"]["cost"]
    assert (cost["requestedQueryCost"], cost["actualQueryCost"]) == (1, 1)
    assert 0 < cost["throttleStatus"]["currentlyAvailable"] <= cost["throttleStatus"]["maximumAvailable"] == 20_000


@pytest.mark.parametrize("ask", TRANSPORTS)
async def test_what_is_too_complex_is_refused_on_each_transport(server: Server, token: str, ask: Transport) -> None:
    spreads = "{ ...f0 }" + "".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(22))
    answer = await ask(server, token, {"query": spreads + "fragment f22 on Query { __typename }"})
    assert code(answer) == "QUERY_TOO_COMPLEX"
    assert answer["errors"][0]["extensions"]["limit"] == {"measure": "fields", "asked": None, "limit": 500}


@pytest.fixture(scope="module")
def closed(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nothing of the schema is shown, and little may be spent."""
    environment = server_environment(tmp_path_factory.mktemp("closed"), vendor)
    limits = {"INTROSPECTION": "false", "COST_BUCKET": "2500", "COST_RESTORE_RATE": "1"}
    with running_server(environment | limits) as started:
        yield started


@pytest.mark.parametrize("ask", TRANSPORTS)
async def test_who_has_spent_all_waits(closed: Server, organisation: str, ask: Transport) -> None:
    token = closed.token(organisation)
    fields = " ".join(f"a{n}: models(first: 100) {{ nodes {{ id prices {{ input }} }} }}" for n in range(8))
    call = {"query": f"query ($given: Boolean!) {{ {fields} __typename @include(if: $given) }}"}
    answer = await ask(closed, token, call)  # that a variable is missing is found when its cost is taken
    assert code(answer) == "BAD_USER_INPUT"
    answer = await ask(closed, token, call)
    assert code(answer) == "RATE_LIMITED"
    extensions = answer["errors"][0]["extensions"]
    assert extensions["retryable"] is True
    assert extensions["retryAfterMs"] > 0
    if ask is by_post:
        async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
            refused = await client.post(closed.url, json=call)
        waits_ms = refused.json()["errors"][0]["extensions"]["retryAfterMs"]
        assert int(refused.headers["retry-after"]) == ceil(waits_ms / 1000)
    other = await ask(closed, closed.token(f"{organisation}-2"), {"query": "{ __typename }"})
    assert other["data"] == {"__typename": "Query"}


async def test_what_takes_long_to_read_is_paid_for(closed: Server, organisation: str) -> None:
    """A body full of brackets takes 30 times as long as one long text does, whatever is said of it then."""
    headers = {"authorization": f"Bearer {closed.token(organisation)}", "content-type": "application/json"}
    brackets, text = b"[" + b"[]," * 600_000 + b"[]]", b'"' + b"x" * 1_800_000 + b'"'
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:

        async def sent(value: bytes) -> dict[str, Any]:
            body = b'{"query": "{ __typename }", "variables": {"given": ' + value + b"}}"
            answer: dict[str, Any] = (await client.post(closed.url, content=body)).json()
            return answer

        left = (await sent(text))["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"]
        assert left > 2_000
        codes = [code(await sent(brackets))]
        while codes[-1] == "QUERY_TOO_COMPLEX" and len(codes) < 100:
            codes.append(code(await sent(brackets)))
        assert codes[-1] == "RATE_LIMITED"
        assert (await sent(text))["errors"][0]["extensions"]["retryAfterMs"] > 0


async def test_so_is_a_message_of_a_socket(closed: Server, organisation: str) -> None:
    """Be it none that runs anything."""
    token = closed.token(organisation)
    brackets = [[]] * 600_000
    async with raw_socket(closed, token) as socket:
        await socket.say({"type": "ping", "payload": {"given": brackets}})
        assert (await socket.hear())["type"] == "pong"
        answer = await by_post(closed, token, {"query": "{ __typename }"})
        assert answer["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"] < 2_450


async def test_what_is_not_to_be_explored_shows_neither_schema_nor_page(closed: Server, organisation: str) -> None:
    token = closed.token(organisation)
    for query in ("{ __schema { types { name } } }", "{ viewr { subject } }", "{ configs(frst: 1) { nodes { id } } }"):
        answer = await by_post(closed, token, {"query": query})
        assert code(answer) == "BAD_USER_INPUT"
        assert "Did you mean" not in str(answer)
    async with httpx.AsyncClient(timeout=60) as client:
        page = await client.get(closed.url, headers={"accept": "text/html"})
    assert page.status_code == 401
    assert "html" not in page.headers["content-type"]
