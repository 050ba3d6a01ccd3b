from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.errors import ProviderError, ProviderInvalidRequestError, ProviderRateLimitedError
from providers.fold import fold
from providers.ports import Transport, TransportResponse
from providers.scripted import MODELS, ScriptedProvider
from providers.types import (
    CompletionRequest,
    Credentials,
    FinishReason,
    Message,
    ProviderCompletion,
    Role,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

SCRIPTED = ScriptedProvider(pace_s=0)
KEY = Credentials("")


class NoNetwork:
    async def post(self, *arguments: Any, **more: Any) -> TransportResponse:
        raise AssertionError("a scripted answer needs no network")

    stream = post


OFFLINE: Transport = NoNetwork()  # type: ignore[assignment]


def ask(model: str, text: str = "one two three", **fields: Any) -> CompletionRequest:
    return CompletionRequest(model, (Message(Role.SYSTEM, "be brief"), Message(Role.USER, text)), **fields)


async def complete(request: CompletionRequest) -> ProviderCompletion:
    """Both forms, which must agree."""
    plain = await SCRIPTED.complete(request, credentials=KEY, transport=OFFLINE)
    batches = [batch async for batch in SCRIPTED.stream(request, credentials=KEY, transport=OFFLINE)]
    assert all(batches)
    assert fold(event for batch in batches for event in batch) == plain
    return plain


async def test_echo_says_what_it_was_told() -> None:
    answer = await complete(ask("echo"))
    assert answer.content == "You said: one two three"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (5, 5)
    assert answer.model == "echo"


async def test_a_stop_text_ends_the_answer() -> None:
    answer = await complete(ask("echo", stop=("three", " two")))
    assert (answer.content, answer.finish_reason) == ("You said: one", FinishReason.STOP)


async def test_the_limit_counts_words() -> None:
    answer = await complete(ask("lorem", max_tokens=3))
    assert (answer.content, answer.finish_reason) == ("lorem ipsum dolor", FinishReason.LENGTH)
    whole = await complete(ask("lorem"))
    assert whole.usage is not None
    assert (whole.usage.output_tokens, whole.finish_reason) == (120, FinishReason.STOP)


async def test_a_tool_gets_the_smallest_arguments_its_schema_admits() -> None:
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": ["integer", "null"]},
            "unit": {"enum": ["C", "F"]},
            "area": {"type": "object", "properties": {"radius": {"type": "number"}}, "required": ["radius"]},
            "optional": {"type": "string"},
        },
        "required": ["city", "days", "unit", "area"],
    }
    answer = await complete(
        ask("tool", tools=(Tool("other"), Tool("weather", None, schema)), tool_choice=force("weather"))
    )
    (call,) = answer.tool_calls
    assert call.name == "weather"
    assert orjson.loads(call.arguments) == {"city": "", "days": 0, "unit": "C", "area": {"radius": 0}}
    assert answer.finish_reason is FinishReason.TOOL_CALLS


def force(name: str) -> ToolChoice:
    return ToolChoice(ToolChoiceMode.REQUIRED, name)


async def test_no_tool_is_called_where_none_may_be() -> None:
    answer = await complete(ask("tool", tools=(Tool("a"),), tool_choice=ToolChoice(ToolChoiceMode.NONE)))
    assert not answer.tool_calls
    for request in (ask("tool"), ask("tool", tools=(Tool("a"),), tool_choice=force("b"))):
        with pytest.raises(ProviderInvalidRequestError):
            await complete(request)


@pytest.mark.parametrize("model", [name for name in MODELS if name.startswith("fail-")])
async def test_failures_are_the_typed_errors(model: str) -> None:
    with pytest.raises(ProviderError) as raised:
        await complete(ask(model))
    assert raised.value.code == "PROVIDER_" + model.removeprefix("fail-").upper().replace("-", "_")


async def test_a_stream_fails_too() -> None:
    with pytest.raises(ProviderRateLimitedError) as raised:
        await anext(SCRIPTED.stream(ask("fail-rate-limited"), credentials=KEY, transport=OFFLINE))
    assert raised.value.retryable


async def test_an_unknown_script_is_refused_with_the_names() -> None:
    with pytest.raises(ProviderInvalidRequestError, match=r"echo, lorem, tool, embed, fail-auth"):
        await complete(ask("gpt-4o"))


async def test_the_shipped_one_paces_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async for _ in ScriptedProvider().stream(ask("echo"), credentials=KEY, transport=OFFLINE):
        pass
    assert waits == [0.02] * 5 + [0]


async def test_a_long_run_of_blanks_costs_no_time() -> None:
    async with asyncio.timeout(10):
        assert (await complete(ask("echo", "x" + " " * 200_000))).content == "You said: x"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "required", "enum", "x"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["type", "properties", "required", "enum", "x"]), JSON))
async def test_no_schema_breaks_it(schema: dict[str, Any]) -> None:
    answer = await SCRIPTED.complete(ask("tool", tools=(Tool("a", None, schema),)), credentials=KEY, transport=OFFLINE)
    orjson.loads(answer.tool_calls[0].arguments)
