"""What every provider does, the shipped fake included: the same tests against a vendor that answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from providers.adapter import CodecProvider
from providers.errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderUnavailableError,
    UnsupportedFeatureError,
)
from providers.fold import fold
from providers.http import HttpTransport, open_transport
from providers.ports import ModelProvider
from providers.registry import Capability, ProviderRow
from providers.scripted import ScriptedProvider
from providers.types import (
    CompletionRequest,
    Credentials,
    FinishReason,
    Message,
    ProviderCompletion,
    Role,
    StreamEvent,
    TextDelta,
    Tool,
    ToolCall,
    Usage,
)
from tests.fake_vendor import FakeVendor, running

from .added_vendor import ROWS

pytestmark = pytest.mark.asyncio(loop_scope="module")

SEARCH = Tool("search", "Finds things.", {"type": "object", "properties": {"query": {"type": "string"}}})
RESPONSES = "-responses"
NAMES = [*(row.name for row in ROWS), "openai" + RESPONSES]


@dataclass(frozen=True)
class Bench:
    """One provider and what it takes to call it. `models` says which model plays which part."""

    provider: ModelProvider
    credentials: Credentials
    transport: HttpTransport
    models: dict[str, str]

    async def complete(self, request: CompletionRequest) -> ProviderCompletion:
        return await self.provider.complete(request, credentials=self.credentials, transport=self.transport)

    async def stream(self, request: CompletionRequest) -> AsyncIterator[Sequence[StreamEvent]]:
        async with aclosing(
            self.provider.stream(request, credentials=self.credentials, transport=self.transport)
        ) as batches:
            async for batch in batches:
                assert batch
                yield batch

    async def streamed(self, request: CompletionRequest) -> ProviderCompletion:
        return fold([event async for batch in self.stream(request) for event in batch])

    def ask(self, text: str, part: str = "text", **fields: Any) -> CompletionRequest:
        model = self.models.get(part, self.models["text"])
        return CompletionRequest(model=model, messages=(Message(Role.USER, text),), **fields)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vendor() -> AsyncIterator[FakeVendor]:
    async with running() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def transport() -> AsyncIterator[HttpTransport]:
    async with open_transport(trust_env=False) as opened:
        yield opened


def vendor_bench(row: ProviderRow, vendor: FakeVendor, transport: HttpTransport, model: str = "model-1") -> Bench:
    provider = CodecProvider(row.codec(), f"{vendor.url}/v/{row.name}/")
    return Bench(provider, Credentials("test-key"), transport, {"text": model})


def named_bench(name: str, vendor: FakeVendor, transport: HttpTransport) -> Bench:
    """OpenAI's other API is a vendor of its own here: a model that thinks goes there."""
    row = next(row for row in ROWS if row.name == name.removesuffix(RESPONSES))
    return vendor_bench(row, vendor, transport, "gpt-5" if name.endswith(RESPONSES) else "model-1")


@pytest.fixture(params=[*NAMES, "scripted"])
def bench(request: pytest.FixtureRequest, vendor: FakeVendor, transport: HttpTransport) -> Bench:
    vendor.reset()
    if request.param == "scripted":
        return Bench(ScriptedProvider(pace_s=0), Credentials(""), transport, {"text": "lorem", "tool": "tool"})
    return named_bench(request.param, vendor, transport)


@pytest.fixture(params=NAMES)
def remote(request: pytest.FixtureRequest, vendor: FakeVendor, transport: HttpTransport) -> Bench:
    vendor.reset()
    return named_bench(request.param, vendor, transport)


async def test_text_plain_and_streamed_are_one(bench: Bench) -> None:
    request = bench.ask("Say twenty words [[tokens=20]]")
    plain = await bench.complete(request)
    assert plain == await bench.streamed(request)
    assert plain.content
    assert plain.finish_reason is FinishReason.STOP
    assert plain.usage is not None
    assert plain.usage.output_tokens == len(plain.content.split())
    assert plain.usage.input_tokens == 4


async def test_the_limit_cuts_the_answer(bench: Bench) -> None:
    request = bench.ask("[[tokens=20]]", max_tokens=7)
    plain = await bench.complete(request)
    assert plain == await bench.streamed(request)
    assert (plain.finish_reason, plain.usage and plain.usage.output_tokens) == (FinishReason.LENGTH, 7)


async def test_a_tool_is_called_and_its_result_answered(bench: Bench) -> None:
    request = bench.ask("[[tool]] please", "tool", tools=(SEARCH,))
    plain = await bench.complete(request)
    assert plain == await bench.streamed(request)
    assert plain.finish_reason is FinishReason.TOOL_CALLS
    (call,) = plain.tool_calls
    assert call.name == "search"
    assert call.id
    history = (Message(Role.ASSISTANT, tool_calls=(call,)), Message(Role.TOOL, "found it", tool_call_id=call.id))
    answer = await bench.complete(replace(request, messages=request.messages + history))
    assert answer.content
    assert not answer.tool_calls


async def test_the_vendor_counts_what_is_told(remote: Bench, vendor: FakeVendor) -> None:
    request = remote.ask("one two three [[tokens=30]]")
    usages = [(await remote.complete(request)).usage, (await remote.streamed(request)).usage]
    (tally,) = vendor.stats()[remote.provider.name].values()
    assert tally["answered"] == tally["calls"] == 2
    assert tally["input_tokens"] == sum(usage.input_tokens for usage in usages if usage)
    assert tally["output_tokens"] == sum(usage.output_tokens for usage in usages if usage) == 60


@pytest.mark.parametrize(
    ("directive", "kind"),
    [("401", ProviderAuthError), ("429", ProviderRateLimitedError), ("503", ProviderUnavailableError)],
)
async def test_refusals_are_typed(remote: Bench, directive: str, kind: type[ProviderError]) -> None:
    request = remote.ask(f"[[{directive}]] [[retry=3]]")
    for call in (remote.complete, remote.streamed):
        with pytest.raises(kind) as raised:
            await call(request)
        assert raised.value.retry_after == 3
        assert raised.value.status == int(directive)
        assert raised.value.sent


async def test_two_failures_then_an_answer(remote: Bench) -> None:
    request = remote.ask("[[503x2]]")
    for _ in range(2):
        with pytest.raises(ProviderUnavailableError):
            await remote.complete(request)
    assert (await remote.complete(request)).content


async def test_a_cut_stream_gives_what_came_and_then_an_error(remote: Bench, vendor: FakeVendor) -> None:
    events: list[StreamEvent] = []

    async def read() -> None:
        async for batch in remote.stream(remote.ask("[[cut=5]] [[tokens=9]] [[pace=20]]")):
            events.extend(batch)

    with pytest.raises((ProviderUnavailableError, ProviderBadResponseError)):
        await read()
    assert fold(events).content == "token0 token1 token2 token3 token4"
    with pytest.raises(ProviderUnavailableError) as raised:
        await remote.complete(remote.ask("[[cut=0]]"))
    assert raised.value.sent
    assert vendor.records[-1].output_tokens == 0


async def test_closing_a_stream_hangs_up(remote: Bench, vendor: FakeVendor) -> None:
    async for batch in remote.stream(remote.ask("[[hang=3]]")):
        if any(isinstance(event, TextDelta) and "token2" in event.text for event in batch):
            break
    record = vendor.records[-1]
    await asyncio.wait_for(record.ended.wait(), 20)
    assert record.disconnected
    (tally,) = vendor.stats()[remote.provider.name].values()
    assert (tally["open"], tally["disconnects"], tally["partial_output_tokens"]) == (0, 1, 3)


async def test_cancelling_a_plain_call_hangs_up(remote: Bench, vendor: FakeVendor) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await remote.complete(remote.ask("[[hang=0]]"))
    record = vendor.records[-1]
    await asyncio.wait_for(record.ended.wait(), 20)
    assert record.disconnected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_capabilities_are_what_the_codec_does(row: ProviderRow) -> None:
    codec = row.codec()
    request = CompletionRequest("model-1", (Message(Role.USER, "hi"),), end_user="someone")
    assert ("someone" in str(codec.encode(request, stream=False).body)) is (Capability.END_USER in row.capabilities)
    if Capability.SEED in row.capabilities:
        assert "4711" in str(codec.encode(replace(request, seed=4711), stream=False).body)
        return
    with pytest.raises(UnsupportedFeatureError) as raised:
        codec.encode(replace(request, seed=4711), stream=False)
    assert not raised.value.sent


async def test_hundred_calls_at_once_keep_their_own_answers(remote: Bench) -> None:
    async def call(number: int) -> tuple[int, Usage | None, Usage | None]:
        request = remote.ask(f"{'word ' * number}[[tokens={number}]]")
        plain, streamed = await asyncio.gather(remote.complete(request), remote.streamed(request))
        return number, plain.usage, streamed.usage

    for number, *usages in await asyncio.gather(*map(call, range(1, 51))):
        assert all(usage and (usage.input_tokens, usage.output_tokens) == (number + 1, number) for usage in usages)


async def test_tool_call_ids_of_another_vendor_are_taken(remote: Bench) -> None:
    call = ToolCall("toolu_01A09q90qw90lq917835lq9", "search", '{"query":"x"}')
    messages = (
        Message(Role.USER, "go"),
        Message(Role.ASSISTANT, tool_calls=(call,)),
        Message(Role.TOOL, "found", tool_call_id=call.id),
    )
    assert (await remote.complete(CompletionRequest("model-1", messages, tools=(SEARCH,)))).content
