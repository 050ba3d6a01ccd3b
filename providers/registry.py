"""The vendors, one row each. A new vendor that speaks chat completions is one more row and its transcripts; operators
declare such rows of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final

from .adapter import CodecProvider
from .anthropic import AnthropicCodec
from .anthropic_batches import AnthropicBatchCodec
from .batching import BatchCodec, VendorBatches
from .compatible import CompatibleCodec
from .gemini import GeminiCodec
from .groq import GroqCodec
from .mistral import MistralCodec
from .openai import AzureOpenAICodec, OpenAICodec
from .openai_batches import OpenAIBatchCodec
from .openrouter import OpenRouterCodec
from .ports import Codec, ModelProvider


class Capability(StrEnum):
    """What not every API has. END_USER: the vendor is told the caller's own user; elsewhere only our ledger knows."""

    SEED = "seed"
    END_USER = "end_user"


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """`base_url` is where the vendor serves, None where the operator must say; it ends as the vendor's own SDK has it.
    The variables are those that operators set: None where they can't. A server with `keyless` may take no key.
    `reference` is the page that the codec follows; `example` is a model to try the vendor with."""

    name: str
    title: str
    base_url: str | None
    codec: Callable[[], Codec]
    key_variable: str | None
    base_url_variable: str | None
    reference: str
    example: str | None = None
    keyless: bool = False
    capabilities: frozenset[Capability] = frozenset(Capability)
    batch_codec: Callable[[Codec], BatchCodec] | None = None


ROWS: tuple[ProviderRow, ...] = (
    ProviderRow(
        name="openai",
        title="OpenAI",
        base_url="https://api.openai.com/v1",
        codec=OpenAICodec,
        key_variable="OPENAI_API_KEY",
        base_url_variable="OPENAI_BASE_URL",
        reference="https://platform.openai.com/docs/api-reference/chat",
        example="gpt-4o-mini",
        batch_codec=OpenAIBatchCodec,
    ),
    ProviderRow(
        name="anthropic",
        title="Anthropic",
        base_url="https://api.anthropic.com",
        codec=AnthropicCodec,
        key_variable="ANTHROPIC_API_KEY",
        base_url_variable="ANTHROPIC_BASE_URL",
        reference="https://docs.anthropic.com/en/api/messages",
        example="claude-haiku-4-5",
        capabilities=frozenset({Capability.END_USER}),
        batch_codec=AnthropicBatchCodec,
    ),
    ProviderRow(
        name="google",
        title="Google Gemini",
        base_url="https://generativelanguage.googleapis.com",
        codec=GeminiCodec,
        key_variable="GOOGLE_API_KEY",
        base_url_variable="GOOGLE_BASE_URL",
        reference="https://ai.google.dev/api/generate-content",
        example="gemini-2.5-flash",
        capabilities=frozenset({Capability.SEED}),
    ),
    ProviderRow(
        name="groq",
        title="Groq",
        base_url="https://api.groq.com",
        codec=GroqCodec,
        key_variable="GROQ_API_KEY",
        base_url_variable="GROQ_BASE_URL",
        reference="https://console.groq.com/docs/api-reference",
        example="llama-3.3-70b-versatile",
    ),
    ProviderRow(
        name="mistral",
        title="Mistral",
        base_url="https://api.mistral.ai",
        codec=MistralCodec,
        key_variable="MISTRAL_API_KEY",
        base_url_variable="MISTRAL_BASE_URL",
        reference="https://docs.mistral.ai/api/",
        example="mistral-small-latest",
        capabilities=frozenset({Capability.SEED}),
    ),
    ProviderRow(
        name="openrouter",
        title="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        codec=OpenRouterCodec,
        key_variable="OPENROUTER_API_KEY",
        base_url_variable="OPENROUTER_BASE_URL",
        reference="https://openrouter.ai/docs/api-reference/chat-completion",
        example="openai/gpt-4o-mini",
    ),
    ProviderRow(
        name="azure",
        title="Azure OpenAI",
        base_url=None,
        codec=AzureOpenAICodec,
        key_variable="AZURE_OPENAI_API_KEY",
        base_url_variable="AZURE_OPENAI_BASE_URL",
        reference="https://learn.microsoft.com/azure/ai-foundry/openai/latest",
    ),
    ProviderRow(
        name="compatible",
        title="OpenAI-compatible server",
        base_url=None,
        codec=CompatibleCodec,
        key_variable="COMPATIBLE_API_KEY",
        base_url_variable="COMPATIBLE_BASE_URL",
        reference="https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
        keyless=True,
    ),
)


_DIALECTS: Final[Mapping[str, Callable[[str], Codec]]] = {
    "compatible": CompatibleCodec,
    "openai": OpenAICodec,
    "groq": GroqCodec,
    "mistral": MistralCodec,
    "openrouter": OpenRouterCodec,
}
DIALECTS: Final = tuple(_DIALECTS)
"""What a declared server may speak: chat completions, plain or with one vendor's quirks."""


def declared_row(name: str, title: str, base_url: str, key_variable: str | None, dialect: str) -> ProviderRow:
    """The row of an operator's own server, which speaks as the vendor named by `dialect`: one of DIALECTS. Its
    `base_url` ends as that vendor's does."""
    spoken = next(row for row in ROWS if row.name == dialect)
    return replace(
        spoken,
        name=name,
        title=title,
        base_url=base_url,
        codec=partial(_DIALECTS[dialect], name),
        key_variable=key_variable,
        base_url_variable=None,
        example=None,
        keyless=key_variable is None,
        batch_codec=None,
    )


def build_providers(rows: Iterable[ProviderRow] = ROWS) -> dict[str, ModelProvider]:
    """Every vendor by name. Keys and other base URLs come with each call."""
    return {row.name: _provider(row) for row in rows}


def _provider(row: ProviderRow) -> CodecProvider:
    codec = row.codec()
    batches = None if row.batch_codec is None else VendorBatches(row.batch_codec(codec), row.base_url)
    return CodecProvider(codec, row.base_url, batches)
