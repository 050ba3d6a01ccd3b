"""No vendor's figure reaches the ledger that the ledger could not hold."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest

from providers.anthropic import AnthropicCodec
from providers.errors import ProviderBadResponseError
from providers.figures import MAX_COUNT
from providers.gemini import GeminiCodec
from providers.mistral import MistralCodec
from providers.openai import OpenAICodec
from providers.openrouter import OpenRouterCodec
from providers.ports import Codec
from providers.types import Usage

CHOICES = [{"message": {"content": "a"}, "finish_reason": "stop"}]
CANDIDATES = [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]


def chat(**counts: Any) -> dict[str, Any]:
    return {"choices": CHOICES, "usage": {"prompt_tokens": 1, "completion_tokens": 2, **counts}}


def anthropic(**counts: Any) -> dict[str, Any]:
    figures = {"input_tokens": 1, "output_tokens": 2, **counts}
    return {"type": "message", "content": [], "stop_reason": "end_turn", "usage": figures}


def gemini(**counts: Any) -> dict[str, Any]:
    return {"candidates": CANDIDATES, "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2, **counts}}


FIELDS: list[tuple[Codec, Callable[..., dict[str, Any]], str]] = [
    (OpenAICodec(), chat, "prompt_tokens"),
    (OpenAICodec(), chat, "completion_tokens"),
    (MistralCodec(), chat, "num_cached_tokens"),
    (AnthropicCodec(), anthropic, "input_tokens"),
    (AnthropicCodec(), anthropic, "output_tokens"),
    (AnthropicCodec(), anthropic, "cache_read_input_tokens"),
    (GeminiCodec(), gemini, "promptTokenCount"),
    (GeminiCodec(), gemini, "thoughtsTokenCount"),
]
every_field = pytest.mark.parametrize(("codec", "payload", "field"), FIELDS)


@every_field
@pytest.mark.parametrize("count", [-1, MAX_COUNT + 1, 2**63, 1e300, 1.0, nan, True, False, "1", "", []], ids=repr)
def test_a_count_is_a_whole_number_in_bounds(
    codec: Codec, payload: Callable[..., dict[str, Any]], field: str, count: Any
) -> None:
    with pytest.raises(ProviderBadResponseError, match=f"{field} is not a count"):
        codec.decode(payload(**{field: count}))


@every_field
@pytest.mark.parametrize("count", [0, MAX_COUNT])
def test_the_bounds_themselves_are_counts(
    codec: Codec, payload: Callable[..., dict[str, Any]], field: str, count: int
) -> None:
    usage = codec.decode(payload(**{field: count})).usage
    assert usage is not None
    assert usage.input_tokens + usage.output_tokens + usage.cached_input_tokens >= count


@pytest.mark.parametrize("cost", [-0.1, -1, 1e9, 1e300, 1e-300, inf, -inf, nan, 10**400, True, False, "1", [1]])
def test_a_cost_is_an_amount(cost: Any) -> None:
    with pytest.raises(ProviderBadResponseError, match="cost is not an amount"):
        OpenRouterCodec().decode(chat(cost=cost))


@pytest.mark.parametrize(("cost", "booked"), [(0, "0"), (0.0, "0"), (3, "3"), (1e-9, "1e-9"), (999999999.5, None)])
def test_an_amount_is_booked_as_it_is(cost: float, booked: str | None) -> None:
    assert OpenRouterCodec().decode(chat(cost=cost)).usage == Usage(1, 2, cost=Decimal(booked or str(cost)))


def test_no_cost_is_no_cost() -> None:
    assert OpenRouterCodec().decode(chat(cost=None)).usage == Usage(1, 2)
