"""Two server processes are one service: what one runs, the other can cancel, count, and knows by its key."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from gql import Client, GraphQLRequest
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport

from .documents import CANCEL, COMPLETE, DETACHED, RECORD, RESUME, STREAM
from .processes import Server, Vendor, post
from .site import Site
from .test_cancellation import LEAVES_WITHIN_S, closed_in, open_calls, until
from .test_usage_live import tick, ticks


@pytest.fixture
def organisation() -> str:
    return f"two-{secrets.token_hex(6)}"


def asked(organisation: str, prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": f"openai/{organisation}", "messages": [{"role": "USER", "content": prompt}], **more}


def sockets(server: Server, organisation: str) -> Client:
    init = {"Authorization": f"Bearer {server.token(organisation)}"}
    return Client(transport=WebsocketsTransport(url=server.socket_url, init_payload=init))


async def resumed(server: Server, organisation: str, after: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What comes after an event, to the end."""
    behind = {"id": after["completionId"], "after": after["sequence"]}
    asked_for = GraphQLRequest(RESUME, variable_values=behind)
    async with asyncio.timeout(60), sockets(server, organisation) as resuming:
        return [answer["resumeCompletion"] async for answer in resuming.subscribe(asked_for)]


def text_of(events: Iterable[Mapping[str, Any]]) -> str:
    return "".join(event.get("text", "") for event in events)


def complete(server: Server, organisation: str, prompt: str = "[[tokens=3]]", **more: Any) -> dict[str, Any]:
    return post(server, server.token(organisation), COMPLETE, {"input": asked(organisation, prompt, **more)})


async def test_a_stream_is_cancelled_by_the_other(site: Site, vendor: Vendor, organisation: str) -> None:
    one, other = site.servers
    headers = {"authorization": f"Bearer {other.token(organisation)}"}
    stream = GraphQLRequest(STREAM, variable_values={"input": asked(organisation, "[[tokens=500]] [[pace=10]]")})
    events: list[Mapping[str, Any]] = []
    async with (
        asyncio.timeout(30),
        sockets(one, organisation) as streaming,
        Client(transport=AIOHTTPTransport(url=other.url, headers=headers)) as asking,
    ):
        async for answer in streaming.subscribe(stream):
            events.append(answer["completionStream"])
            if events[-1]["__typename"] == "TextDelta" and events[-2]["__typename"] != "TextDelta":
                by = {"id": events[-1]["completionId"]}
                cancelled = await asking.execute(GraphQLRequest(CANCEL, variable_values={"by": by}))
                assert cancelled["cancelCompletion"] == {"completionId": by["id"], "cancelled": True}
        assert events[-1]["completion"]["finishReason"] == "CANCELLED"
        assert await closed_in(vendor, "openai", organisation) < LEAVES_WITHIN_S
    record = post(other, other.token(organisation), RECORD, {"by": by})["data"]["completion"]
    assert record["outcome"] == "CANCELLED"


async def test_a_stream_is_resumed_in_the_other(site: Site, organisation: str) -> None:
    """Its socket is cut, and it goes on: in the other process all of it is told, from any event on."""
    one, other = site.servers
    asked_for = {"input": asked(organisation, "[[tokens=60]] [[pace=20]]")}
    seen: list[Mapping[str, Any]] = []
    async with asyncio.timeout(30), sockets(one, organisation) as streaming:
        async for answer in streaming.subscribe(GraphQLRequest(DETACHED, variable_values=asked_for)):
            seen.append(answer["completionStream"])
            if len(seen) == 5:
                break
    rest = await resumed(other, organisation, seen[-1])
    again = await resumed(other, organisation, {**seen[0], "sequence": 0})
    (end,) = (event for event in rest if event["__typename"] == "CompletionFinished")
    assert end["completion"]["finishReason"] == "STOP"
    assert text_of([*seen, *rest]) == text_of(again) == end["completion"]["content"]
    assert [event["sequence"] for event in rest] == sorted({event["sequence"] for event in rest})
    assert rest[0]["sequence"] > seen[-1]["sequence"]
    assert rest[-1] == again[-1] == end
    record = post(one, one.token(organisation), RECORD, {"by": {"id": end["completionId"]}})["data"]["completion"]
    assert record["outcome"] == "SUCCEEDED"
    with pytest.raises(TransportQueryError) as refusal:
        await resumed(other, "somebody-else", seen[0])
    assert (refusal.value.errors or [{}])[0]["extensions"]["code"] == "NOT_FOUND"


async def test_a_mutation_is_cancelled_by_the_other_by_its_key(site: Site, vendor: Vendor, organisation: str) -> None:
    one, other = site.servers
    key = secrets.token_hex(8)
    running = asyncio.create_task(asyncio.to_thread(complete, one, organisation, "[[hang=0]]", idempotencyKey=key))
    await until(lambda: open_calls(vendor, "openai", organisation) == 1)
    cancelled = await asyncio.to_thread(post, other, other.token(organisation), CANCEL, {"by": {"idempotencyKey": key}})
    assert cancelled["data"]["cancelCompletion"]["cancelled"]
    assert await closed_in(vendor, "openai", organisation) < LEAVES_WITHIN_S
    await running


async def test_what_nobody_runs_is_cancelled_nowhere(site: Site, organisation: str) -> None:
    """Another organisation's stays what it is to this one: unknown."""
    one, other = site.servers
    done = complete(one, organisation)["data"]["complete"]["id"]
    for server in site.servers:
        answer = post(server, server.token(organisation), CANCEL, {"by": {"id": done}})
        assert answer["data"]["cancelCompletion"] == {"completionId": done, "cancelled": False}
        foreign = post(other, other.token("somebody-else"), CANCEL, {"by": {"id": done}})
        assert foreign["errors"][0]["extensions"]["code"] == "NOT_FOUND"


async def test_a_key_is_used_once_in_both(site: Site, vendor: Vendor, organisation: str) -> None:
    """Ten calls with one key at once, in turns here and there: one is done, nine hear whose key it is."""
    key = secrets.token_hex(8)
    answers = await asyncio.gather(
        *(
            asyncio.to_thread(complete, server, organisation, "[[delay=300]] [[tokens=3]]", idempotencyKey=key)
            for server in [*site.servers] * 5
        )
    )
    done = [answer["data"]["complete"]["id"] for answer in answers if "errors" not in answer]
    refused = [answer["errors"][0]["extensions"] for answer in answers if "errors" in answer]
    assert len(done) == 1
    assert {each["code"] for each in refused} == {"CONFLICT"}
    assert vendor.tally("openai", organisation)["calls"] == 1


async def test_live_usage_counts_the_other_too(site: Site, organisation: str) -> None:
    one, other = site.servers
    async with (
        asyncio.timeout(30),
        sockets(other, organisation) as watching,
        aclosing(ticks(watching)) as results,
    ):
        assert (await tick(results))["totals"]["completions"] == 0
        for _ in range(3):
            assert "errors" not in await asyncio.to_thread(complete, one, organisation)
        while (await tick(results))["totals"]["completions"] < 3:
            pass  # the timeout ends it


async def test_what_a_caller_spends_in_one_is_spent_in_the_other(site: Site, organisation: str) -> None:
    """Of 20,000 points, which come back within a second, an operation whose variable is missing keeps 1,800."""
    one, other = site.servers
    fields = " ".join(f"a{n}: models(first: 100) {{ nodes {{ id prices {{ input }} }} }}" for n in range(9))
    wrong = f"query ($given: Boolean!) {{ {fields} __typename @include(if: $given) }}"

    def available(server: Server) -> int:
        answer = post(server, server.token(organisation), "{ __typename }", {})
        left: int = answer["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"]
        return left

    async def keeps_spending() -> None:
        while True:
            await asyncio.to_thread(post, one, one.token(organisation), wrong, {})

    spending = [asyncio.create_task(keeps_spending()) for _ in range(4)]
    try:
        async with asyncio.timeout(30):
            while await asyncio.to_thread(available, other) > 15_000:  # noqa: ASYNC110  # another process tells it
                await asyncio.sleep(0.1)
    finally:
        for task in spending:
            task.cancel()
        await asyncio.wait(spending)
