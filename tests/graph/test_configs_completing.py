"""Completions by config: plain, streamed and several at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers.types import Message, Role
from tests.resolvers.scene import texts

from .configs_stage import GREET, open_configs_stage, publish, told, write
from .stage import Stage, refusals

COMPLETE = "mutation ($input: CompleteInput!) { complete(input: $input) { id content } }"
STREAM = "subscription ($input: CompleteInput!) { completionStream(input: $input) { __typename } }"
MANY = """
mutation ($inputs: [CompleteInput!]!) {
  completeMany(inputs: $inputs) {
    ... on Completion { content }
    ... on CompletionFailure { index code path retryable completionId }
  }
}
"""
BY_CONFIG = {"config": {"slug": "greet", "variables": {"name": "Ada"}}}
USER = {"role": "USER", "content": "And Bob"}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with open_configs_stage(tmp_path) as stage:
        await publish(stage, responseFormat=None)
        yield stage


def of_the_config(**more: Any) -> dict[str, Any]:
    return {**BY_CONFIG, **more}


async def test_a_config_is_all_that_a_completion_needs(stage: Stage) -> None:
    stage.scene.alpha.will(texts("Hello!"))
    answer = await told(stage, COMPLETE, input=of_the_config())
    assert answer["content"] == "Hello!"
    request = stage.scene.alpha.calls[0].request
    assert request.messages == (Message(Role.SYSTEM, "You speak English."), Message(Role.USER, "Hello Ada"))
    assert (request.temperature, request.top_p, request.max_tokens, request.stop) == (0.5, 0.9, 100, ("\n",))
    assert ([tool.name for tool in request.tools], request.options) == (["look_up"], {"tier": "flex"})
    record = await told(
        stage,
        "query ($id: ID!) { completion(by: {id: $id}) { config configVersion labels { name value } } }",
        id=answer["id"],
    )
    assert record == {"config": "greet", "configVersion": 1, "labels": [{"name": "team", "value": "a"}]}


async def test_the_call_goes_before_the_config(stage: Stage) -> None:
    stage.scene.beta.will(texts("Hi."))
    more: dict[str, Any] = {
        "model": "beta/b-9",
        "messages": [USER],
        "temperature": 0.0,
        "stop": [],
        "tools": [],
        "toolChoice": {"mode": "AUTO"},
        "fallbacks": [],
        "providerOptions": {},
        "labels": [{"name": "tier", "value": "b"}],
    }
    await told(stage, COMPLETE, input=of_the_config(**more))
    request = stage.scene.beta.calls[0].request
    assert (request.model, request.messages[-1]) == ("b-9", Message(Role.USER, "And Bob"))
    assert (request.temperature, request.stop, request.tools, request.options) == (0.0, (), (), {})
    assert request.top_p == 0.9, "what the call leaves out is the config's"
    assert stage.scene.booked("labels", "config") == [({"team": "a", "tier": "b"}, "greet")]


async def test_a_version_may_be_named(stage: Stage) -> None:
    changed = {"model": "beta/b-1"}
    await write(stage, "updateConfig", by=GREET, draft=changed, expectedRevision=2)
    await write(stage, "publishConfig", by=GREET)
    stage.scene.alpha.will(texts("Old."))
    stage.scene.beta.will(texts("New."))
    old = {"config": {**BY_CONFIG["config"], "version": 1}}
    assert (await told(stage, COMPLETE, input=old))["content"] == "Old."
    new = {"config": {"slug": "greet"}, "messages": [USER]}
    assert (await told(stage, COMPLETE, input=new))["content"] == "New."


async def test_a_stream_by_config(stage: Stage) -> None:
    stage.scene.alpha.will(texts("Hello!"))
    assert await told(stage, STREAM, input=of_the_config()) == {"__typename": "CompletionStarted"}


@pytest.mark.parametrize("document", [COMPLETE, STREAM])
@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"messages": [USER]}, ("BAD_USER_INPUT", ["input", "model"])),
        ({"model": "alpha/a-1"}, ("BAD_USER_INPUT", ["input", "messages"])),
        ({"config": {"slug": "greet"}}, ("BAD_USER_INPUT", ["input", "config", "variables", "name"])),
        (
            {"config": {"slug": "greet", "variables": {"name": "a", "nam": "b"}}},
            ("BAD_USER_INPUT", ["input", "config", "variables", "nam"]),
        ),
        ({"config": {"slug": "greet", "variables": []}}, ("BAD_USER_INPUT", ["input", "config", "variables"])),
        ({"config": {"slug": "nobody"}}, ("NOT_FOUND", None)),
        (of_the_config(model="nowhere"), ("BAD_USER_INPUT", ["input", "model"])),
        (of_the_config(labels=[{"name": "", "value": ""}]), ("BAD_USER_INPUT", ["input", "labels"])),
    ],
)
async def test_what_no_completion_can_be_made_of(
    stage: Stage, document: str, given: dict[str, Any], refused: tuple[str, Any]
) -> None:
    _, errors = await stage.ask(document, {"input": given})
    assert refusals(errors) == [refused]
    assert stage.scene.alpha.calls == []


async def test_an_archived_config_is_none_for_completions(stage: Stage) -> None:
    await write(stage, "archiveConfig", by=GREET)
    _, errors = await stage.ask(COMPLETE, {"input": of_the_config()})
    assert refusals(errors) == [("BAD_USER_INPUT", ["input", "config", "slug"])]


async def test_a_config_that_fails_is_its_own_items_failure(stage: Stage) -> None:
    stage.scene.alpha.will(texts("one"), texts("four"))
    inputs = [
        of_the_config(),
        {"config": {"slug": "greet"}},
        {"config": {"slug": "nobody"}},
        {"model": "alpha/a-1", "messages": [USER]},
    ]
    assert await told(stage, MANY, inputs=inputs) == [
        {"content": "one"},
        {
            "index": 1,
            "code": "BAD_USER_INPUT",
            "path": ["inputs", 1, "config", "variables", "name"],
            "retryable": False,
            "completionId": None,
        },
        {"index": 2, "code": "NOT_FOUND", "path": None, "retryable": False, "completionId": None},
        {"content": "four"},
    ]
