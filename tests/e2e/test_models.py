"""Providers, their health, and models through the real server."""

from __future__ import annotations

import asyncio

from gql import Client, GraphQLRequest
from gql.transport.websockets import WebsocketsTransport

from .processes import PROVIDERS, Server, post
from .test_cancellation import own_model
from .test_many import MANY
from .test_providers import asked

HEALTH = "subscription { providerHealth { name configured circuit attempts errorRate latencyMs } }"
ALL = {*PROVIDERS, "scripted"}


def test_models_of_every_provider_with_a_key(server: Server, token: str) -> None:
    query = "query ($search: String) { models(filter: { search: $search }) { nodes { id model } } }"
    (mini,) = post(server, token, query, {"search": "openai/gpt-4.1-nano"})["data"]["models"]["nodes"][:1]
    answer = post(server, token, f'{{ node(id: "{mini["id"]}") {{ id ... on Model {{ maxOutputTokens }} }} }}')
    assert answer["data"]["node"] == {"id": mini["id"], "maxOutputTokens": 32_768}
    providers = post(server, token, "{ providers { name configured } }")["data"]["providers"]
    assert {each["name"] for each in providers if each["configured"]} == ALL


async def test_a_provider_that_breaks_is_told(server: Server, token: str, organisation: str) -> None:
    transport = WebsocketsTransport(url=server.socket_url, init_payload={"Authorization": f"Bearer {token}"})
    broken = {**asked("mistral", f"{organisation} [[503]]"), "model": own_model("mistral", organisation)}
    async with asyncio.timeout(20), Client(transport=transport) as session:
        events = session.subscribe(GraphQLRequest(HEALTH))
        present = [(await anext(events))["providerHealth"] for _ in ALL]
        assert {each["name"] for each in present} == ALL
        failing = asyncio.create_task(asyncio.to_thread(post, server, token, MANY, {"inputs": [broken] * 2}))
        async for event in events:
            provider = event["providerHealth"]
            if provider["name"] == "mistral" and provider["circuit"] == "OPEN":
                break
        assert provider["attempts"] >= 5
        assert provider["errorRate"] > 0
        await failing
        await events.aclose()
