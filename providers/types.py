"""Neutral requests, events and answers: the vocabulary that every codec translates to and from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(StrEnum):
    """Why the model stopped. `CANCELLED` is ours: the caller asked for the end; no vendor sends it."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    CANCELLED = "cancelled"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks for. `arguments` is JSON text, exactly as the model wrote it. `signature` is the
    vendor's, opaque: where there is one it must come back with the call."""

    id: str
    name: str
    arguments: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Media:
    """Bytes, or where they are: either `data`, in base64 and with a `media_type`, or `url`. `name` is a file's."""

    url: str | None = None
    data: str | None = field(default=None, repr=False)
    media_type: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class TextPart:
    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    media: Media


@dataclass(frozen=True, slots=True)
class FilePart:
    """A document, such as a PDF. With `cite` the answer says which passages of it it rests on."""

    media: Media
    cite: bool = False


Part = TextPart | ImagePart | FilePart


@dataclass(frozen=True, slots=True)
class ReasoningBlock:
    """Reasoning of an earlier answer, with the vendor's opaque `signature`: it must come back as it was, in its place.
    `text` is empty where the vendor shows none."""

    text: str
    signature: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `content`, or `parts` in its place (user turns alone). `tool_calls` and `reasoning` only on assistant
    turns; `tool_call_id` only, and always, on tool turns; with `is_error` the tool failed, and the content says how.
    `cache`: the vendor may keep the conversation up to the end of this turn in its prompt cache."""

    role: Role
    content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    parts: tuple[Part, ...] = ()
    is_error: bool = False
    reasoning: tuple[ReasoningBlock, ...] = ()
    cache: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is a JSON Schema of type object."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


class ToolChoiceMode(StrEnum):
    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """How free the model is to call tools. A `name` forces that one tool; then `mode` is REQUIRED."""

    mode: ToolChoiceMode
    name: str | None = None

    @property
    def forced(self) -> bool:
        return self.mode is ToolChoiceMode.REQUIRED


class ReasoningEffort(StrEnum):
    """How long the model may think before it answers."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The answer is JSON: any object without `schema`, else what that JSON Schema describes, under that `name`.
    `strict`: the vendor must keep the model to it."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    strict: bool = True


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """What is asked of one model. `model` is the vendor's own name; `options` go into the body as they are. `logprobs`:
    the log-probability of each token of the answer, with so many of the likeliest beside it."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    end_user: str | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None
    logprobs: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens by kind. Parts are included in their sums: cached and cache-write in input, reasoning in output; of sound
    and pictures, whose tokens some vendors price otherwise, in input (of sound also in cached) and output.

    `cost` is what the vendor itself says it charged, in USD; None where it says nothing. `off_table`: it was billed at
    other than the published standard prices, as another service tier is.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal | None = None
    off_table: bool = False
    input_audio_tokens: int = 0
    cached_audio_tokens: int = 0
    output_audio_tokens: int = 0
    input_image_tokens: int = 0
    output_image_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """What a passage of the answer rests on. `quote` is of the source; `start` and `end` are the passage's place in the
    answer's text, in characters. None is what the vendor does not say."""

    url: str | None = None
    title: str | None = None
    quote: str | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer and its natural log-probability; `likeliest` are (token, log-probability) at its place."""

    token: str
    logprob: float
    likeliest: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ProviderCompletion:
    """One whole answer. `usage` is None where the vendor sent none; `model` is the name the vendor answered with.
    `reasoning_blocks` are those that must come back in the next turn; `reasoning` is all of the text that is shown."""

    content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    model: str | None = None
    reasoning_blocks: tuple[ReasoningBlock, ...] = ()
    citations: tuple[Citation, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """The texts that one model is to turn into vectors. `dimensions`: how many numbers each has; None leaves it to the
    model. `options` go into the body as they are."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int | None = None
    end_user: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderEmbeddings:
    """One vector an input, in the inputs' order. `usage` is None where the vendor sent none."""

    vectors: tuple[Sequence[float], ...]
    usage: Usage | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More reasoning. A `signature` closes the block that the text since the last one makes."""

    text: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A fragment of one tool call. `id`, `name` and `signature` come with the first; `arguments` concatenate."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Cited:
    citation: Citation


@dataclass(frozen=True, slots=True)
class Weighed:
    """Log-probabilities of tokens, in the order of the text."""

    tokens: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The model's stop and the final figures; each field may come in an event of its own, the last one wins."""

    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    model: str | None = None


StreamEvent = TextDelta | ReasoningDelta | ToolCallDelta | Cited | Weighed | Finished


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one call authenticates with. Handed to each call; never kept in an adapter."""

    api_key: str = field(repr=False)
    base_url: str | None = None
