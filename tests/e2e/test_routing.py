"""Retries, fallbacks and the one deadline, through the real server."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import orjson
import pytest

from .documents import COMPLETE, RECORD, STREAM
from .processes import MODELS, PROVIDERS, Server, post
from .test_providers import asked, complete, stream, text_of


def fresh(prompt: str) -> str:
    """A prompt of its own: the fake vendor counts failures by prompt."""
    return f"{prompt} {secrets.token_hex(4)}"


async def test_retries_what_is_retryable(server: Server, token: str) -> None:
    answer = await complete(server, token, asked("openai", fresh("[[503x2]]")))
    assert [attempt["outcome"] for attempt in answer["attempts"]] == ["FAILED", "FAILED", "SUCCEEDED"]
    assert answer["attempts"][0]["errorCode"] == "PROVIDER_UNAVAILABLE"
    assert answer["content"].startswith("token0")


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_falls_back_and_tells_the_story(server: Server, token: str, provider: str) -> None:
    other = "mistral" if provider != "mistral" else "groq"
    completion = asked(provider, fresh(f"[[401@{provider}]]"), fallbacks=[{"model": f"{other}/{MODELS[other]}"}])
    answer = await complete(server, token, completion)
    assert answer["provider"] == other
    story = [(attempt["provider"], attempt["errorCode"]) for attempt in answer["attempts"]]
    assert story == [(provider, "PROVIDER_AUTH"), (other, None)]
    record = post(server, token, RECORD, {"by": {"id": answer["id"]}})["data"]["completion"]
    assert record["outcome"] == "SUCCEEDED"
    assert record["usage"] == {key: answer["usage"][key] for key in record["usage"]}


async def test_stream_switches_before_the_first_token(server: Server, token: str) -> None:
    completion = asked("anthropic", fresh("[[529@anthropic]]"), fallbacks=[{"model": f"google/{MODELS['google']}"}])
    events = await stream(server, token, completion)
    kinds = [event["__typename"] for event in events]
    assert kinds[:2] == ["CompletionStarted", "ProviderSwitched"]
    assert (events[1]["provider"], events[1]["errorCode"]) == ("google", "PROVIDER_UNAVAILABLE")
    assert kinds[-1] == "CompletionFinished"
    assert text_of(events) == events[-1]["completion"]["content"]


async def test_stream_that_breaks_is_not_begun_again(server: Server, token: str) -> None:
    events = await stream(server, token, asked("openai", fresh("[[tokens=50]] [[pace=1]] [[cut=5]]")))
    assert events[-1]["__typename"] == "CompletionFailed"
    assert events[-1]["code"] in ("PROVIDER_UNAVAILABLE", "PROVIDER_BAD_RESPONSE")
    assert len(events[-1]["attempts"]) == 1
    assert text_of(events) == " ".join(f"token{index}" for index in range(5))
    record = post(server, token, RECORD, {"by": {"id": events[-1]["completionId"]}})["data"]["completion"]
    assert record["usage"]["estimated"]
    assert record["usage"]["outputTokens"] > 0


def test_one_deadline_bounds_it_all(server: Server, token: str) -> None:
    completion = asked("openai", "[[hang=0]]", timeoutMs=300, fallbacks=[{"model": "groq/llama-3.3-70b-versatile"}])
    answer = post(server, token, COMPLETE, {"input": completion})
    (error,) = answer["errors"]
    assert answer["data"] == {"complete": None}
    assert error["extensions"]["code"] == "DEADLINE_EXCEEDED"
    assert [attempt["outcome"] for attempt in error["extensions"]["attempts"]] == ["FAILED"]
    by: dict[str, Any] = {"by": {"id": error["extensions"]["completionId"]}}
    assert post(server, token, RECORD, by)["data"]["completion"]["usage"]["estimated"]


async def test_deadline_ends_a_stream(server: Server, token: str) -> None:
    events = await stream(server, token, asked("mistral", "[[tokens=20]] [[hang=4]]", timeoutMs=500))
    assert events[-1]["__typename"] == "CompletionFailed"
    assert events[-1]["code"] == "DEADLINE_EXCEEDED"
    assert text_of(events) == "token0 token1 token2 token3"


def test_stream_over_sse_is_the_same(server: Server, token: str) -> None:
    with httpx.stream(
        "POST",
        server.url,
        json={"query": STREAM, "variables": {"input": asked("openai", "[[tokens=6]]")}},
        headers={"authorization": f"Bearer {token}", "accept": "text/event-stream"},
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        blocks = answer.read().decode().split("\n\n")
    assert blocks[-2:] == ["event: complete\ndata:", ""]
    events = [
        orjson.loads(block.removeprefix("event: next\ndata: "))["data"]["completionStream"]
        for block in blocks
        if block.startswith("event: next")
    ]
    assert text_of(events) == " ".join(f"token{index}" for index in range(6))
    assert events[-1]["__typename"] == "CompletionFinished"
