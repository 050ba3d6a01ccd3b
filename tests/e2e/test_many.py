"""completeMany through the real server: in parallel, each with its own outcome, all cancelled when the client goes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from .documents import RECORDS
from .processes import Server, Vendor, post
from .test_cancellation import LEAVES_WITHIN_S, closed_in, open_calls, own_model, until
from .test_providers import asked

MANY = """
mutation Many($inputs: [CompleteInput!]!) {
  completeMany(inputs: $inputs) {
    ... on Completion { content provider }
    ... on CompletionFailure { index code path retryable completionId attempts { outcome } }
  }
}
"""


def booked(server: Server, token: str, count: int) -> list[dict[str, Any]] | None:
    """The organisation's records once there are so many."""
    nodes: list[dict[str, Any]] = post(server, token, RECORDS)["data"]["completions"]["nodes"]
    return nodes if len(nodes) == count else None


def test_parallel_in_order_each_on_its_own(server: Server, token: str) -> None:
    inputs = [
        asked("openai", "One. [[tokens=3]] [[delay=1500]]"),
        asked("anthropic", "Two. [[400]]"),
        {**asked("groq", "Three."), "model": "nowhere"},
        asked("google", "Four. [[tokens=2]] [[delay=1500]]"),
        asked("mistral", "Five. [[hang=0]]", timeoutMs=1500),
        asked("groq", "Six. [[tokens=1]] [[delay=1500]]"),
    ]
    started = time.monotonic()
    outcomes = post(server, token, MANY, {"inputs": inputs})["data"]["completeMany"]
    assert time.monotonic() - started < 4.5, "one after the other they take 6 s"
    assert outcomes[0] == {"content": "token0 token1 token2", "provider": "openai"}
    assert (outcomes[1]["index"], outcomes[1]["code"]) == (1, "PROVIDER_INVALID_REQUEST")
    assert (outcomes[2]["code"], outcomes[2]["path"]) == ("BAD_USER_INPUT", ["inputs", 2, "model"])
    assert outcomes[3] == {"content": "token0 token1", "provider": "google"}
    assert (outcomes[4]["code"], outcomes[4]["attempts"]) == ("DEADLINE_EXCEEDED", [{"outcome": "FAILED"}])
    assert outcomes[5]["content"] == "token0"
    nodes = post(server, token, RECORDS)["data"]["completions"]["nodes"]
    assert sorted(node["outcome"] for node in nodes) == ["FAILED"] * 2 + ["SUCCEEDED"] * 3


async def test_a_client_that_leaves_cancels_them_all(
    server: Server, vendor: Vendor, token: str, organisation: str
) -> None:
    hanging: dict[str, Any] = {**asked("openai", "[[hang=0]]"), "model": own_model("openai", organisation)}
    body = {"query": MANY, "variables": {"inputs": [hanging] * 3}}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {token}"}) as session:
        call = asyncio.create_task(session.post(server.url, json=body))
        await until(lambda: open_calls(vendor, "openai", organisation) == 3)
        call.cancel()
        await asyncio.wait([call])
    assert await closed_in(vendor, "openai", organisation) < LEAVES_WITHIN_S
    nodes = await until(lambda: booked(server, token, 3))
    assert [node["outcome"] for node in nodes] == ["CANCELLED"] * 3
