"""What a completion is asked and answered with, free of GraphQL and of any vendor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol

from persistence.records import CostSource, Outcome
from providers.types import (
    Citation,
    FinishReason,
    Message,
    ReasoningBlock,
    ReasoningEffort,
    ResponseFormat,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
)

from .errors import LimitDetail


@dataclass(frozen=True, slots=True)
class Target:
    """Where a completion may go: a provider's name and that vendor's own model name."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


class Command(Protocol):
    """What routing and booking know of what a caller asks for."""

    @property
    def target(self) -> Target: ...
    @property
    def fallbacks(self) -> tuple[Target, ...]: ...
    @property
    def timeout_ms(self) -> int | None: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def end_user(self) -> str | None: ...
    @property
    def idempotency_key(self) -> str | None: ...
    @property
    def provider_options(self) -> Mapping[str, Mapping[str, Any]]: ...
    @property
    def config(self) -> str | None: ...
    @property
    def config_version(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class EmbedCommand:
    """Texts to turn into vectors, all by one model: those of two models can't be compared, so there are no fallbacks.
    `timeout_ms` bounds everything, retries included."""

    target: Target
    inputs: tuple[str, ...]
    dimensions: int | None = None
    timeout_ms: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    end_user: str | None = None
    idempotency_key: str | None = None
    provider_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fallbacks: tuple[Target, ...] = field(default=(), init=False)
    config: str | None = field(default=None, init=False)
    config_version: int | None = field(default=None, init=False)


@dataclass(frozen=True, slots=True)
class CompleteCommand:
    """One completion as the caller asks for it. `timeout_ms` bounds everything: retries and fallbacks included.
    `config` is the slug of the config that it was made from, with the version's number."""

    target: Target
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    logprobs: int | None = None
    fallbacks: tuple[Target, ...] = ()
    timeout_ms: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    end_user: str | None = None
    idempotency_key: str | None = None
    provider_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    config: str | None = None
    config_version: int | None = None


@dataclass(frozen=True, slots=True)
class ConfigBy:
    """Names one config of the caller's organisation: exactly one of the two is given."""

    id: str | None = None
    slug: str | None = None


@dataclass(frozen=True, slots=True)
class ConfigRef:
    """The config that a completion is made from; without a `version`, the published one."""

    slug: str
    version: int | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigCall:
    """A completion by config, with what the call says itself. None leaves it to the config, an empty tuple does not;
    `messages` follow the config's, and `labels` are added to its."""

    config: ConfigRef
    target: Target | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    seed: int | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    logprobs: int | None = None
    fallbacks: tuple[Target, ...] | None = None
    timeout_ms: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    end_user: str | None = None
    idempotency_key: str | None = None
    provider_options: Mapping[str, Mapping[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call to a vendor, as told to the caller: `number` from 1 over retries and fallbacks, `usage` its own alone.
    `error_code` is None for the attempt that answered; times are from its sending on."""

    number: int
    provider: str
    model: str
    outcome: Outcome
    error_code: str | None
    latency_ms: int
    time_to_first_token_ms: int | None
    usage: TokenUsage
    price_version: str | None


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens by kind and their exact cost in USD; `cost` is None where no price is known."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    cost_source: CostSource
    estimated: bool


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer. `usage` sums all attempts; `model` and `provider` are those that answered. `parsed` is the content's
    JSON where such was asked for."""

    id: str
    provider: str
    model: str
    content: str | None
    parsed: Any
    reasoning: str | None
    reasoning_blocks: tuple[ReasoningBlock, ...]
    tool_calls: tuple[ToolCall, ...]
    citations: tuple[Citation, ...]
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason
    usage: TokenUsage
    latency_ms: int
    time_to_first_token_ms: int | None
    attempts: tuple[Attempt, ...]
    cached: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector an input, in the inputs' order. `usage` sums all attempts."""

    id: str
    provider: str
    model: str
    vectors: tuple[Sequence[float], ...]
    usage: TokenUsage
    latency_ms: int
    attempts: tuple[Attempt, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CompletionRef:
    """Names one completion of the caller's organisation: exactly one of the two is given."""

    id: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class CompletionStarted:
    completion_id: str
    sequence: int
    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class TextProduced:
    completion_id: str
    sequence: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningProduced:
    """A `signature` closes the block that the text since the last one makes."""

    completion_id: str
    sequence: int
    text: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallProduced:
    """A fragment of tool call number `index`; `id`, `name` and `signature` come with its first fragment."""

    completion_id: str
    sequence: int
    index: int
    id: str | None
    name: str | None
    arguments: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderSwitched:
    """The route left a target for the next one. Only ever before the first delta."""

    completion_id: str
    sequence: int
    provider: str
    model: str
    error_code: str


@dataclass(frozen=True, slots=True)
class CompletionFinished:
    completion_id: str
    sequence: int
    completion: Completion


@dataclass(frozen=True, slots=True)
class CompletionFailed:
    """`usage` is what the failed attempts cost; the deltas before this event were booked with it. `content` is the
    whole answer where one came, and was not what responseFormat asks for. `limit` had no room."""

    completion_id: str
    sequence: int
    code: str
    message: str
    provider: str | None
    retryable: bool
    retry_after_ms: int | None
    attempts: tuple[Attempt, ...]
    usage: TokenUsage
    content: str | None = None
    limit: LimitDetail | None = None


CompletionEvent = (
    CompletionStarted
    | TextProduced
    | ReasoningProduced
    | ToolCallProduced
    | ProviderSwitched
    | CompletionFinished
    | CompletionFailed
)
