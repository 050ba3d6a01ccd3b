"""Every write through the real server, and what the audit log tells of it: to its own organisation, and no secret."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
import pytest

from resolvers.principal import Scope
from tests.graph.audit_stage import LOG, SECRET, WRITES, Write, document, filled, made_by
from tests.servers.mongo import migrated_database, shared_mongo

from .documents import COMPLETE
from .processes import Server, Vendor, running_server, server_environment
from .test_keys import CREATE, MINT, made

ECHO = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "hello"}]}
ELSEWHERE = "203.0.113.9"
SUBMIT = "mutation ($input: SubmitBatchInput!) { submitBatch(input: $input) { batch { id } } }"
BATCH = "query ($id: ID!) { batch(id: $id) { state } }"


@pytest.fixture(scope="module", params=["sqlite", "mongodb"])
def server(
    request: pytest.FixtureRequest, vendor: Vendor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    more = {"TRUSTED_PROXIES": "127.0.0.1"}
    if request.param == "mongodb":
        more["MONGODB_CONNECTION_URI"] = asyncio.run(migrated_database(shared_mongo()))
    folder: Path = tmp_path_factory.mktemp("audit")
    with running_server(server_environment(folder, vendor, **more)) as started:
        yield started


def ask(
    server: Server, token: str, query: str, variables: Mapping[str, Any] | None = None, **headers: str
) -> tuple[Any, str]:
    """The one root field's value, and the request's id."""
    answer = httpx.post(
        server.url,
        json={"query": query, "variables": variables or {}},
        headers={"authorization": f"Bearer {token}", **headers},
        timeout=60,
    )
    body = answer.json()
    assert "errors" not in body, body
    (value,) = body["data"].values()
    return value, answer.headers["x-request-id"]


def log(server: Server, token: str, **where: Any) -> list[dict[str, Any]]:
    page, _ = ask(server, token, LOG, {"filter": where})
    assert page["pageInfo"]["hasNextPage"] is False
    nodes: list[dict[str, Any]] = page["nodes"]
    return nodes


def here(write: Write, made: Mapping[str, str]) -> Any:
    """What is given, of providers that there are."""
    text = orjson.dumps(filled(write.given, made)).decode()
    return orjson.loads(re.sub(r'"alpha(?=["/])', '"openai', text))


def failed_batch(server: Server, token: str, done: list[tuple[str, str]]) -> str:
    """The id of one whose only item the vendor has refused."""
    message = {"role": "USER", "content": "[[400]]"}
    given = {"inputs": [{"model": "openai/a-1", "messages": [message]}]}
    answer, request_id = ask(server, token, SUBMIT, {"input": given})
    done.append(("batch.submit", request_id))
    batch: str = answer["batch"]["id"]
    until = time.monotonic() + 60
    while ask(server, token, BATCH, {"id": batch})[0]["state"] != "COMPLETED":
        assert time.monotonic() < until
        time.sleep(0.05)
    return batch


def write_all(server: Server, token: str) -> tuple[list[tuple[str, str]], list[str]]:
    """By each write its action and its request's id, the oldest first; and the secrets that were given or told."""
    completion, _ = ask(server, token, COMPLETE, {"input": ECHO})
    made = {"completion": completion["id"]}
    done, secrets = [], [SECRET, token]
    for write in WRITES:
        given = here(write, made)
        if "completionId" in given:
            given["completionId"] = made["completion"]
        if write.field == "retryBatch":
            given["id"] = failed_batch(server, token, done)
        answer, request_id = ask(server, token, document(write), {"input": given})
        made_by(write, answer, made)
        done.append((write.action, request_id))
        secrets += [answer[name] for name in ("key", "token", "url", "secret") if name in answer]
    return done, secrets


def test_every_write_is_in_its_organisation_s_log_and_no_secret(server: Server) -> None:
    tokens = {name: server.token(name) for name in ("audited", "others")}
    done, secrets = write_all(server, tokens["audited"])
    others, _ = ask(server, tokens["others"], CREATE, {"input": {"name": "Theirs", "grant": {"roles": ["caller"]}}})
    secrets.append(others["key"])
    found = log(server, tokens["audited"])
    assert [(event["action"], event["requestId"]) for event in reversed(found)] == done
    assert {(event["actor"], event["apiKeyId"], event["address"]) for event in found} == {("tester", None, "127.0.0.1")}
    (theirs,) = log(server, tokens["others"])
    assert (theirs["action"], theirs["subjectId"]) == ("api_key.create", others["apiKey"]["id"])
    for where in ({"subjectId": theirs["subjectId"]}, {"actor": "nobody"}, {"since": "2100-01-01T00:00:00Z"}):
        assert log(server, tokens["audited"], **where) == []
    assert log(server, tokens["others"], subjectId=found[0]["subjectId"]) == []
    text = orjson.dumps([found, theirs]).decode()
    parts = [*secrets, *(secret.split("signature=")[-1] for secret in secrets if "signature=" in secret)]
    assert len(parts) == 10
    assert [secret for secret in parts if secret in text] == []
    assert "enc:" not in text
    assert "env:" not in text, "as provider keys are sealed"


def test_a_page_goes_on_where_the_one_before_ended(server: Server) -> None:
    token = server.token("paging")
    for number in range(5):
        made(server, "paging", name=f"Key {number}")
    seen: list[str] = []
    after = None
    for size in (2, 2, 1):
        page, _ = ask(server, token, LOG, {"first": 2, "after": after})
        assert len(page["nodes"]) == size
        seen += [event["after"]["name"] for event in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
    assert page["pageInfo"]["hasNextPage"] is False
    assert seen == [f"Key {number}" for number in (4, 3, 2, 1, 0)]


def test_who_and_from_where(server: Server) -> None:
    """By a key, by a token that the key has minted, and through a proxy that is trusted."""
    admin = server.token("origins")
    key, about = made(server, "origins", grant={"roles": ["admin"]})
    grant = {"scopes": ["configs:write", "configs:read"]}
    minted, _ = ask(server, key, MINT, {"input": {"grant": grant}}, **{"x-request-id": "mine-1"})
    write = WRITES[0]
    through = {"x-forwarded-for": f"198.51.100.1, {ELSEWHERE}", "x-request-id": "mine-2"}
    ask(server, minted["token"], document(write), {"input": here(write, {})}, **through)
    config, mint, _ = log(server, admin)
    assert (config["actor"], config["apiKeyId"]) == (about["id"], about["id"])
    assert (config["address"], config["requestId"]) == (ELSEWHERE, "mine-2")
    assert (mint["actor"], mint["apiKeyId"], mint["action"]) == (about["id"], about["id"], "token.mint")
    assert (mint["address"], mint["requestId"]) == ("127.0.0.1", "mine-1")
    assert mint["after"]["scopes"] == sorted(grant["scopes"])


async def test_a_write_over_a_socket_is_noted_too(server: Server) -> None:
    token = server.token("sockets")
    query, asked = document(WRITES[0]), {"input": here(WRITES[0], {})}
    headers = {"x-forwarded-for": ELSEWHERE}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"], headers=headers) as socket,
    ):
        await socket.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert (await socket.receive_json(timeout=10))["type"] == "connection_ack"
        payload = {"query": query, "variables": asked}
        await socket.send_json({"id": "1", "type": "subscribe", "payload": payload})
        assert "errors" not in (await socket.receive_json(timeout=10))["payload"]
    (event,) = await asyncio.to_thread(log, server, token)
    assert (event["action"], event["actor"], event["address"]) == ("config.create", "tester", ELSEWHERE)
    assert re.fullmatch("[0-9a-f]{32}", event["requestId"])


def test_it_takes_the_scope(server: Server) -> None:
    token = server.token("closed", scopes=[scope for scope in Scope if scope is not Scope.AUDIT_READ])
    answer = httpx.post(server.url, json={"query": LOG}, headers={"authorization": f"Bearer {token}"}, timeout=60)
    assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
