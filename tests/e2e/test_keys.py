"""API keys through the real server, and over two of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from resolvers.principal import SCOPES_OF, Role

from .documents import COMPLETE, STREAM
from .processes import Server, post, running_server, server_environment
from .site import Site

CREATE = """mutation ($input: CreateApiKeyInput!) {
  createApiKey(input: $input) { key apiKey { id hint name revision createdBy grant { scopes roles models networks } } }
}"""
REVOKE = "mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { revokedAt revokedBy } }"
ROTATE = "mutation ($input: RotateApiKeyInput!) { rotateApiKey(input: $input) { key apiKey { id revision } } }"
UPDATE = "mutation ($input: UpdateApiKeyInput!) { updateApiKey(input: $input) { name revision grant { models } } }"
MINT = "mutation ($input: MintTokenInput!) { mintToken(input: $input) { token expiresAt } }"
KEYS = "query ($active: Boolean) { apiKeys(filter: {active: $active}) { nodes { id name lastUsedAt revokedAt } } }"
NODE = "query ($id: ID!) { node(id: $id) { id ... on ApiKey { name } } }"
VIEWER = "{ viewer { subject organisation scopes tokenExpiresAt } }"
ECHO = {"model": "scripted/echo", "messages": [{"role": "USER", "content": "hello"}]}
LONG = {"model": "openai/gpt-4o-mini", "messages": [{"role": "USER", "content": "[[tokens=500]] [[pace=50]]"}]}
CALLS = {"roles": ["caller"]}


def made(server: Server, organisation: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    asked = {"input": {"name": "A server", "grant": CALLS, **changes}}
    created = post(server, server.token(organisation), CREATE, asked)["data"]["createApiKey"]
    return created["key"], created["apiKey"]


def code(answer: dict[str, Any]) -> str:
    found: str = answer["errors"][0]["extensions"]["code"]
    return found


def opens(server: Server, key: str) -> bool:
    answer = post(server, key, VIEWER)
    return "errors" not in answer


def refused_within_s(server: Server, key: str) -> float:
    began = time.monotonic()
    while opens(server, key):
        assert time.monotonic() < began + 10
    return time.monotonic() - began


def test_a_key_s_life(server: Server, organisation: str) -> None:
    token = server.token(organisation)
    key, about = made(server, organisation)
    assert key.startswith(about["hint"])
    assert about["createdBy"] == "tester"
    viewer = post(server, key, VIEWER)["data"]["viewer"]
    assert viewer == {
        "subject": about["id"],
        "organisation": organisation,
        "scopes": sorted(SCOPES_OF[Role.CALLER]),
        "tokenExpiresAt": None,
    }
    assert post(server, key, COMPLETE, {"input": ECHO})["data"]["complete"]["content"] == "You said: hello"
    assert code(post(server, key, KEYS)) == "FORBIDDEN"
    assert post(server, token, NODE, {"id": about["id"]})["data"]["node"]["name"] == "A server"
    new = post(server, token, ROTATE, {"input": {"id": about["id"], "overlapSeconds": 0}})["data"]["rotateApiKey"]
    assert (new["apiKey"], opens(server, key), opens(server, new["key"])) == (
        {"id": about["id"], "revision": 2},
        False,
        True,
    )
    revoked = post(server, token, REVOKE, {"input": {"id": about["id"]}})["data"]["revokeApiKey"]
    assert (revoked["revokedBy"], opens(server, new["key"])) == ("tester", False)
    assert post(server, token, KEYS, {"active": True})["data"]["apiKeys"]["nodes"] == []
    (listed,) = post(server, token, KEYS)["data"]["apiKeys"]["nodes"]
    assert listed["revokedAt"] == revoked["revokedAt"]
    for secret in (key, new["key"]):
        assert secret not in server.log()


def test_a_limited_key_uses_what_it_may(server: Server, organisation: str) -> None:
    key, about = made(server, organisation, grant={**CALLS, "models": ["openai/gpt-4o-mini"]})
    assert code(post(server, key, COMPLETE, {"input": ECHO})) == "FORBIDDEN"
    assert "errors" not in post(server, key, COMPLETE, {"input": {**ECHO, "model": "openai/gpt-4o-mini"}})
    grant = {**CALLS, "models": ["scripted/*"]}
    changed = post(server, server.token(organisation), UPDATE, {"input": {"id": about["id"], "grant": grant}})
    assert changed["data"]["updateApiKey"] == {
        "name": "A server",
        "revision": 2,
        "grant": {"models": ["scripted/*"]},
    }
    assert "errors" not in post(server, key, COMPLETE, {"input": ECHO})


def test_a_browser_s_token_is_narrow(server: Server, organisation: str) -> None:
    key, about = made(server, organisation)
    asked = {"grant": {"scopes": ["completions:write"], "models": ["scripted/*"]}, "lifetimeSeconds": 60}
    token = post(server, key, MINT, {"input": asked})["data"]["mintToken"]["token"]
    assert "errors" not in post(server, token, COMPLETE, {"input": ECHO})
    assert code(post(server, token, COMPLETE, {"input": {**ECHO, "model": "openai/gpt-4o-mini"}})) == "FORBIDDEN"
    assert code(post(server, token, MINT, {"input": asked})) == "FORBIDDEN"
    beyond = {**asked, "grant": {"scopes": ["usage:read"]}}
    assert code(post(server, key, MINT, {"input": beyond})) == "FORBIDDEN"
    narrower = {"id": about["id"], "grant": {**CALLS, "models": ["openai/*"]}}
    assert "errors" not in post(server, server.token(organisation), UPDATE, {"input": narrower})
    assert code(post(server, token, COMPLETE, {"input": ECHO})) == "UNAUTHENTICATED", "its key may no longer do that"


def test_another_organisation_s_key_is_none(server: Server, organisation: str) -> None:
    _, about = made(server, organisation)
    stranger = server.token(f"{organisation}-x")
    for document, asked in (
        (REVOKE, {"input": {"id": about["id"]}}),
        (ROTATE, {"input": {"id": about["id"]}}),
        (UPDATE, {"input": {"id": about["id"], "name": "mine"}}),
        (NODE, {"id": about["id"]}),
    ):
        assert code(post(server, stranger, document, asked)) == "NOT_FOUND"


async def test_a_key_of_one_network(tmp_path: Path) -> None:
    """The address is the one that the trusted proxy tells, on each transport."""
    environment = server_environment(tmp_path, None, TRUSTED_PROXIES="127.0.0.1")
    with running_server(environment) as server:
        key, _ = made(server, "acme", grant={**CALLS, "networks": ["198.51.100.0/24"]})
        for forwarded, status in (("198.51.100.7", 200), ("203.0.113.7", 401), ("198.51.100.7, 203.0.113.7", 401)):
            headers = {"authorization": f"Bearer {key}", "x-forwarded-for": forwarded}
            async with aiohttp.ClientSession(headers=headers) as session:
                for accept in ("application/json", "text/event-stream"):
                    answer = await session.post(server.url, json={"query": VIEWER}, headers={"accept": accept})
                    assert answer.status == status
                socket = await session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"])
                await socket.send_json({"type": "connection_init"})
                message = await socket.receive(timeout=30)
                assert (message.type is aiohttp.WSMsgType.TEXT) == (status == 200)
                assert socket.close_code == (None if status == 200 else 4403)
        assert not opens(server, key)


async def test_revoking_closes_the_key_s_sockets_and_no_others(site: Site) -> None:
    """Within a second, also on the other server; what runs there ends. So does what it has minted."""
    one, other = site.servers
    key, about = made(one, "acme")
    spared, _ = made(one, "acme")
    asked = {"input": {"grant": {"scopes": ["completions:read"]}}}
    minted, spared_one = (post(one, each, MINT, asked)["data"]["mintToken"]["token"] for each in (key, spared))
    assert all(opens(other, each) for each in (key, minted, spared_one))
    async with aiohttp.ClientSession() as session:
        closing = [await socket(session, server, key) for server in (one, other)]
        events = await stream(session, other, key)
        staying = [await socket(session, server, spared) for server in (one, other)]
        began = time.monotonic()
        post(one, one.token("acme"), REVOKE, {"input": {"id": about["id"]}})
        for each in closing:
            async for _ in each:
                pass
            assert each.close_code == 4403
        told = (await events.read()).decode()
        assert '"UNAUTHENTICATED"' in told
        assert told.endswith("event: complete\ndata:\n\n")
        assert time.monotonic() - began < 1.5, "a second, and the answer's own time"
        assert not opens(one, key)
        assert refused_within_s(other, key) < 1
        assert refused_within_s(other, minted) < 1
        assert opens(other, spared_one)
        for each in staying:
            await each.send_json({"type": "ping"})
            while (await each.receive_json(timeout=10))["type"] != "pong":
                pass
            await each.close()


async def stream(session: aiohttp.ClientSession, server: Server, key: str) -> aiohttp.ClientResponse:
    """Server-sent events that go on."""
    headers = {"authorization": f"Bearer {key}", "accept": "text/event-stream"}
    opened = await session.post(server.url, json={"query": STREAM, "variables": {"input": LONG}}, headers=headers)
    assert await opened.content.readline()
    return opened


async def socket(session: aiohttp.ClientSession, server: Server, key: str) -> aiohttp.ClientWebSocketResponse:
    """With a stream that goes on."""
    opened = await session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"])
    await opened.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {key}"}})
    assert (await opened.receive_json())["type"] == "connection_ack"
    await opened.send_json({"id": "1", "type": "subscribe", "payload": {"query": STREAM, "variables": {"input": LONG}}})
    assert (await opened.receive_json())["type"] == "next"
    return opened


@pytest.mark.parametrize("key", ["aim_", "aim_" + "0" * 46, "aim_x.y.z"])
def test_what_is_no_key_is_refused(server: Server, key: str) -> None:
    answer = httpx.post(server.url, json={"query": VIEWER}, headers={"authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert code(answer.json()) == "UNAUTHENTICATED"
