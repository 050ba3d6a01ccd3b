"""Every provider through the real server, with a public GraphQL client: what is answered, and what is booked."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price
from gql import Client, GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.websockets import WebsocketsTransport

from .documents import COMPLETE, RECORDS, STREAM
from .processes import MODELS, PROVIDERS, Server, Vendor

TOOL = {
    "name": "search",
    "description": "Searches.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
}


def asked(provider: str, prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "model": f"{provider}/{MODELS[provider]}",
        "messages": [{"role": "SYSTEM", "content": "Be brief."}, {"role": "USER", "content": prompt}],
        **more,
    }


async def complete(server: Server, token: str, completion: dict[str, Any]) -> dict[str, Any]:
    transport = AIOHTTPTransport(url=server.url, headers={"authorization": f"Bearer {token}"})
    async with Client(transport=transport) as session:
        answer = await session.execute(GraphQLRequest(COMPLETE, variable_values={"input": completion}))
    result: dict[str, Any] = answer["complete"]
    return result


async def stream(server: Server, token: str, completion: dict[str, Any]) -> list[dict[str, Any]]:
    transport = WebsocketsTransport(url=server.socket_url, init_payload={"Authorization": f"Bearer {token}"})
    async with Client(transport=transport) as session:
        request = GraphQLRequest(STREAM, variable_values={"input": completion})
        return [event["completionStream"] async for event in session.subscribe(request)]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["__typename"] == "TextDelta")


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_completion(server: Server, token: str, provider: str) -> None:
    answer = await complete(server, token, asked(provider, "Hello. [[tokens=7]]", labels=[{"name": "a", "value": "b"}]))
    assert answer["content"] == " ".join(f"token{index}" for index in range(7))
    assert (answer["provider"], answer["model"]) == (provider, MODELS[provider])
    assert answer["finishReason"] == "STOP"
    assert answer["usage"]["outputTokens"] == 7
    assert answer["usage"]["inputTokens"] > 0
    assert not answer["usage"]["estimated"]
    assert [attempt["outcome"] for attempt in answer["attempts"]] == ["SUCCEEDED"]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_stream_is_the_plain_answer_in_pieces(server: Server, token: str, provider: str) -> None:
    completion = asked(provider, "Hello. [[tokens=9]] [[pace=2]]")
    plain = await complete(server, token, completion)
    events = await stream(server, token, completion)
    assert events[0]["__typename"] == "CompletionStarted"
    assert events[-1]["__typename"] == "CompletionFinished"
    assert text_of(events) == plain["content"] == events[-1]["completion"]["content"]
    sequence = [event["sequence"] for event in events]
    assert sequence == sorted(set(sequence))
    for figure in ("inputTokens", "outputTokens", "cost", "costSource"):
        assert events[-1]["completion"]["usage"][figure] == plain["usage"][figure]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_tool_call_and_its_result(server: Server, token: str, provider: str) -> None:
    completion = asked(provider, "Find it. [[tool]]", tools=[TOOL])
    answer = await complete(server, token, completion)
    events = await stream(server, token, completion)
    (call,) = answer["toolCalls"]
    assert answer["finishReason"] == "TOOL_CALLS"
    assert (call["name"], call["arguments"]) == ("search", '{"query":"fake"}')
    deltas = [event for event in events if event["__typename"] == "ToolCallDelta"]
    assert "".join(delta["arguments"] for delta in deltas) == call["arguments"]
    assert deltas[0]["name"] == "search"
    assert deltas[0]["signature"] == call["signature"] == ("c2lnbmF0dXJl" if provider == "google" else None)
    followed = asked(provider, "Find it. [[tool]]", tools=[TOOL])
    followed["messages"] += [
        {"role": "ASSISTANT", "toolCalls": [call]},
        {"role": "TOOL", "toolCallId": call["id"], "content": '{"found": true}'},
    ]
    assert (await complete(server, token, followed))["content"].startswith("token0")


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_ledger_equals_the_vendors_count_to_the_token_and_the_price_table_to_the_cent(
    server: Server, vendor: Vendor, token: str, provider: str
) -> None:
    before = vendor.tally(provider, MODELS[provider])
    answers = [await complete(server, token, asked(provider, f"Count. [[tokens={count}]]")) for count in (3, 11)]
    events = await stream(server, token, asked(provider, "Count. [[tokens=5]]"))
    transport = AIOHTTPTransport(url=server.url, headers={"authorization": f"Bearer {token}"})
    async with Client(transport=transport) as session:
        records = (await session.execute(GraphQLRequest(RECORDS)))["completions"]["nodes"]
    assert {record["id"] for record in records} == {*(answer["id"] for answer in answers), events[0]["completionId"]}
    after = vendor.tally(provider, MODELS[provider])
    for booked, counted in (("inputTokens", "input_tokens"), ("outputTokens", "output_tokens")):
        assert sum(record["usage"][booked] for record in records) == after[counted] - before.get(counted, 0) > 0
    for record in records:
        usage = record["usage"]
        assert not usage["estimated"]
        if provider in ("compatible", "openrouter", "azure"):
            continue  # no published price; the vendor's own
        price = calc_price(
            Usage(input_tokens=usage["inputTokens"], output_tokens=usage["outputTokens"]),
            MODELS[provider],
            provider_id=provider,
        )
        assert Decimal(usage["cost"]) == price.total_price


async def test_unknown_price_is_null_and_says_so(server: Server, token: str) -> None:
    usage = (await complete(server, token, asked("compatible", "Hello.")))["usage"]
    assert (usage["cost"], usage["costSource"]) == (None, "UNKNOWN")


async def test_openrouters_own_cost_wins(server: Server, token: str) -> None:
    usage = (await complete(server, token, asked("openrouter", "Hello.")))["usage"]
    assert usage["costSource"] == "PROVIDER"
    assert Decimal(usage["cost"]) > 0


EMBED = """
mutation ($input: EmbedInput!) { embed(input: $input) { id model vectors dimensions usage { inputTokens estimated } } }
"""


@pytest.mark.parametrize("provider", ["openai", "google", "mistral", "openrouter", "azure", "compatible", "scripted"])
async def test_embeddings(server: Server, token: str, provider: str) -> None:
    model = "embed" if provider == "scripted" else MODELS[provider]
    texts = ["one two three", "four"]
    asked = {"model": f"{provider}/{model}", "inputs": texts, "dimensions": 5}
    transport = AIOHTTPTransport(url=server.url, headers={"authorization": f"Bearer {token}"})
    async with Client(transport=transport) as session:
        answer = await session.execute(GraphQLRequest(EMBED, variable_values={"input": asked}))
        found = answer["embed"]
        assert [len(vector) for vector in found["vectors"]] == [5, 5]
        assert (found["model"], found["dimensions"]) == (model, 5)
        assert found["usage"] == {"inputTokens": 4, "estimated": False}
        query = "query ($by: CompletionRef!) { completion(by: $by) { outcome provider usage { inputTokens } } }"
        record = await session.execute(GraphQLRequest(query, variable_values={"by": {"id": found["id"]}}))
    assert record["completion"] == {"outcome": "SUCCEEDED", "provider": provider, "usage": {"inputTokens": 4}}
