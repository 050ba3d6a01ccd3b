"""What a vendor bills at prices of its own is told, so that it is not priced by the table."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from providers.anthropic import AnthropicCodec
from providers.fold import fold
from providers.openai import OpenAICodec
from providers.ports import Codec
from providers.sse import ServerSentEvent
from providers.types import Usage


def openai(tier: str | None) -> tuple[Codec, Any, list[Any]]:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    choice = {"index": 0, "finish_reason": "stop"}
    told = {"usage": usage, "service_tier": tier}
    plain = {"choices": [{**choice, "message": {"role": "assistant", "content": "hi"}}], **told}
    return OpenAICodec(), plain, [{"choices": [{**choice, "delta": {"content": "hi"}}]}, {"choices": [], **told}]


def anthropic(**more: Any) -> tuple[Codec, Any, list[Any]]:
    usage = {"input_tokens": 3, "cache_creation_input_tokens": 0, "output_tokens": 2, **more}
    plain = {"type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn", "usage": usage}
    start = {"type": "message_start", "message": {"model": "claude-x", "content": [], "usage": usage}}
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "hi"}}
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
    return AnthropicCodec(), plain, [start, block, delta]


@pytest.mark.parametrize(
    ("answer", "off_table"),
    [
        (openai(None), False),
        (openai("default"), False),
        (openai("flex"), True),
        (openai("priority"), True),
        (openai("scale"), True),
        (anthropic(), False),
        (anthropic(service_tier="standard"), False),
        (anthropic(service_tier="priority"), True),
        (anthropic(cache_creation={"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 0}), False),
        (anthropic(cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}), True),
    ],
)
def test_other_tiers_are_told(answer: tuple[Codec, Any, list[Any]], off_table: bool) -> None:
    codec, plain, chunks = answer
    decoder = codec.decoder()
    events = [each for chunk in chunks for each in decoder.feed(ServerSentEvent(data=orjson.dumps(chunk).decode()))]
    assert codec.decode(plain).usage == fold(events).usage == Usage(3, 2, off_table=off_table)
