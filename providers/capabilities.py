"""What single models can do, one row each. Every fact stands on the page that its row names; a model without a row has
no known facts, and what a row does not say is not known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

_OPENAI = "https://developers.openai.com/api/docs/models/"
_ANTHROPIC = "https://platform.claude.com/docs/models/overview"
_GOOGLE = "https://ai.google.dev/gemini-api/docs/models/"
_GROQ = "https://console.groq.com/docs/model/"

_SCOUT = "meta-llama/llama-4-scout-17b-16e-instruct"
_MAVERICK = "meta-llama/llama-4-maverick-17b-128e-instruct"


class ModelCapability(StrEnum):
    TOOLS = "tools"
    IMAGES = "images"
    STRUCTURED_OUTPUT = "structured_output"
    REASONING = "reasoning"


_TEXT = frozenset({ModelCapability.TOOLS})
_SIGHTED = _TEXT | {ModelCapability.IMAGES}
_STRICT = _SIGHTED | {ModelCapability.STRUCTURED_OUTPUT}
_ALL = frozenset(ModelCapability)
_BLIND = _ALL - {ModelCapability.IMAGES}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`model` is the vendor's exact name. `max_output_tokens` is the most that it writes in one answer; `source` is the
    vendor's page that says so. `tokens_per_s`: how fast it writes, where the vendor says."""

    provider: str
    model: str
    max_output_tokens: int
    capabilities: frozenset[ModelCapability]
    source: str
    tokens_per_s: int | None = None


ROWS: tuple[ModelFacts, ...] = (
    ModelFacts("openai", "gpt-4o", 16_384, _STRICT, _OPENAI + "gpt-4o"),
    ModelFacts("openai", "gpt-4o-mini", 16_384, _STRICT, _OPENAI + "gpt-4o-mini"),
    ModelFacts("openai", "gpt-4.1", 32_768, _STRICT, _OPENAI + "gpt-4.1"),
    ModelFacts("openai", "gpt-4.1-mini", 32_768, _STRICT, _OPENAI + "gpt-4.1-mini"),
    ModelFacts("openai", "gpt-4.1-nano", 32_768, _STRICT, _OPENAI + "gpt-4.1-nano"),
    ModelFacts("openai", "gpt-5", 128_000, _ALL, _OPENAI + "gpt-5"),
    ModelFacts("openai", "gpt-5-mini", 128_000, _ALL, _OPENAI + "gpt-5-mini"),
    ModelFacts("openai", "gpt-5-nano", 128_000, _ALL, _OPENAI + "gpt-5-nano"),
    # structured output: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
    ModelFacts("anthropic", "claude-fable-5", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-fable-5-1", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-fable-5-2", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-opus-5", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-opus-5-5", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-sonnet-5", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-sonnet-5-5", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-haiku-4-5", 64_000, _ALL, _ANTHROPIC),
    ModelFacts("anthropic", "claude-haiku-5-5", 128_000, _ALL, _ANTHROPIC),
    ModelFacts("google", "gemini-2.5-pro", 65_536, _ALL, _GOOGLE + "gemini-2.5-pro"),
    ModelFacts("google", "gemini-2.5-flash", 65_536, _ALL, _GOOGLE + "gemini-2.5-flash"),
    ModelFacts("google", "gemini-2.5-flash-lite", 65_536, _ALL, _GOOGLE + "gemini-2.5-flash-lite"),
    ModelFacts("groq", "llama-3.3-70b-versatile", 32_768, _TEXT, _GROQ + "llama-3.3-70b-versatile", 280),
    ModelFacts("groq", "llama-3.1-8b-instant", 131_072, _TEXT, _GROQ + "llama-3.1-8b-instant", 560),
    ModelFacts("groq", "openai/gpt-oss-120b", 65_536, _BLIND, _GROQ + "openai/gpt-oss-120b", 500),
    ModelFacts("groq", "openai/gpt-oss-20b", 65_536, _BLIND, _GROQ + "openai/gpt-oss-20b", 1000),
    ModelFacts("groq", "qwen/qwen3-32b", 40_960, _TEXT | {ModelCapability.REASONING}, _GROQ + "qwen/qwen3-32b", 400),
    ModelFacts("groq", _SCOUT, 8_192, _STRICT, _GROQ + _SCOUT, 750),
    ModelFacts("groq", _MAVERICK, 8_192, _STRICT, _GROQ + _MAVERICK),
)

STREAMS_END = frozenset({"openai", "azure", "anthropic", "scripted"})
"""Vendors that break off a stream that nobody reads any more. Others write it to its end, and bill it, or may pass it
on to such as do; the page says of none that it breaks off what is not streamed:
https://openrouter.ai/docs/api-reference/streaming, under "Stream Cancellation"."""

BILL_REFUSALS = frozenset({"azure"})
"""Vendors that bill what they have processed of a request that they refuse for its content or its length, or that ran
out of time (408): https://learn.microsoft.com/azure/ai-services/openai/how-to/manage-costs, under "HTTP Error response
code and billing status"."""

FACTS: Mapping[tuple[str, str], ModelFacts] = {(row.provider, row.model): row for row in ROWS}
