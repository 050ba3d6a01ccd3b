"""A development fake that ships: a provider with no vendor, no network and no price, for trying out everything else.

Its models are scripts, the same request always gets the same answer, and a token is a word:

- `echo` answers "You said: " and the last user message;
- `lorem` answers 120 words of filler, for watching a stream;
- `tool` calls the tool that is forced, or the first one declared, and reports what a tool answered;
- `embed` turns texts into vectors of length 1, of 8 numbers or as many as `dimensions` says;
- `fail-auth`, `fail-rate-limited`, `fail-unavailable` and so on raise that error, for trying one's error handling.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import shake_256
from itertools import cycle, islice
from math import sqrt
from typing import Any

import orjson

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderContentFilteredError,
    ProviderContextLengthError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from .features import Feature, check_features
from .fold import fold
from .ports import Transport
from .types import (
    CompletionRequest,
    Credentials,
    EmbeddingRequest,
    Finished,
    FinishReason,
    Message,
    ProviderCompletion,
    ProviderEmbeddings,
    Role,
    StreamEvent,
    TextDelta,
    TextPart,
    ToolCallDelta,
    ToolChoiceMode,
    Usage,
)

NAME = "scripted"

_LOREM = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut labore et dolore magna "
    "aliqua ut enim ad minim veniam quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat"
)
_LOREM_WORDS = 120
_TOKEN = re.compile(r"\s*\S+")
_EMPTY_VALUES: Mapping[str, Any] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "null": None,
}
_SCHEMA_DEPTH = 8
_DIMENSIONS = 8
_FEATURES = frozenset({Feature.TOOLS, Feature.SEED})

_FAILURES: Mapping[str, type[ProviderError]] = {
    "fail-" + error.code.removeprefix("PROVIDER_").lower().replace("_", "-"): error
    for error in (
        ProviderAuthError,
        ProviderBadResponseError,
        ProviderContentFilteredError,
        ProviderContextLengthError,
        ProviderInvalidRequestError,
        ProviderRateLimitedError,
        ProviderTimeoutError,
        ProviderUnavailableError,
    )
}
EMBED = "embed"
MODELS: tuple[str, ...] = ("echo", "lorem", "tool", EMBED, *_FAILURES)


@dataclass(frozen=True, slots=True)
class ScriptedProvider:
    """Implements `ports.ModelProvider`. A stream waits `pace_s` seconds before each token; a plain answer never waits.

    Credentials and transport are ignored, as are temperature, top_p, seed and options: a script has no use for them.
    """

    pace_s: float = 0.02

    @property
    def name(self) -> str:
        return NAME

    async def complete(
        self, request: CompletionRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderCompletion:
        """Raises the error that a `fail-` model names, and ProviderInvalidRequestError for a name that is no script."""
        return fold(_perform(request))

    async def embed(
        self, request: EmbeddingRequest, *, credentials: Credentials, transport: Transport
    ) -> ProviderEmbeddings:
        """Raises as `complete` does."""
        if request.model != EMBED:
            _check_fails(request.model)
            raise ProviderInvalidRequestError(f"the script that embeds is {EMBED!r}", provider=NAME)
        size = request.dimensions or _DIMENSIONS
        vectors = tuple(_vector(text, size) for text in request.inputs)
        return ProviderEmbeddings(vectors, Usage(input_tokens=sum(map(_words, request.inputs))), EMBED)

    async def stream(
        self, request: CompletionRequest, *, credentials: Credentials, transport: Transport
    ) -> AsyncGenerator[Sequence[StreamEvent], None]:
        """Raises as `complete` does."""
        for event in _perform(request):
            await asyncio.sleep(0 if isinstance(event, Finished) else self.pace_s)
            yield (event,)


def _perform(request: CompletionRequest) -> Iterator[StreamEvent]:
    """The whole answer; `complete` folds it, so that both forms are one."""
    _check_fails(request.model)
    check_features(request, NAME, _FEATURES)
    match request.model:
        case "echo":
            return _say(request, f"You said: {_last(request, Role.USER)}")
        case "lorem":
            return _say(request, " ".join(islice(cycle(_LOREM.split()), _LOREM_WORDS)))
        case "tool":
            return _use_tool(request)
    names = ", ".join(MODELS)
    raise ProviderInvalidRequestError(f"there is no script {request.model!r}; there are {names}", provider=NAME)


def _check_fails(model: str) -> None:
    if model in _FAILURES:
        raise _FAILURES[model]("a scripted failure", provider=NAME)


def _vector(text: str, size: int) -> list[float]:
    """The same for the same text: its hash, as long as it takes."""
    numbers = [byte - 127.5 for byte in shake_256(text.encode()).digest(size)]
    length = sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers]


def _say(request: CompletionRequest, text: str) -> Iterator[StreamEvent]:
    ends = [at for stop in request.stop if stop and (at := text.find(stop)) >= 0]
    tokens = _TOKEN.findall(text[: min(ends, default=len(text))].rstrip())
    said = tokens[: request.max_tokens]
    yield from map(TextDelta, said)
    yield _finished(request, FinishReason.STOP if said == tokens else FinishReason.LENGTH, len(said))


def _use_tool(request: CompletionRequest) -> Iterator[StreamEvent]:
    if request.messages and request.messages[-1].role is Role.TOOL:
        yield from _say(request, f"The tool said: {_last(request, Role.TOOL)}")
        return
    choice = request.tool_choice
    if choice is not None and choice.mode is ToolChoiceMode.NONE:
        yield from _say(request, "No tool was to be called.")
        return
    wanted = choice.name if choice is not None else None
    tool = next((each for each in request.tools if wanted in (None, each.name)), None)
    if tool is None:
        raise ProviderInvalidRequestError("the script `tool` needs a tool to call", provider=NAME)
    arguments = orjson.dumps(_smallest(tool.parameters)).decode()
    half = len(arguments) // 2
    yield ToolCallDelta(0, id="call_1", name=tool.name, arguments=arguments[:half])
    yield ToolCallDelta(0, arguments=arguments[half:])
    yield _finished(request, FinishReason.TOOL_CALLS, _words(tool.name) + _words(arguments))


def _smallest(schema: Any, depth: int = 0) -> Any:
    """The least value that a JSON Schema's types and required properties admit."""
    if not isinstance(schema, Mapping) or depth > _SCHEMA_DEPTH:
        return {}
    values, kind, required = schema.get("enum"), schema.get("type"), schema.get("required")
    if isinstance(values, list) and values:
        return values[0]
    if isinstance(kind, list) and kind:
        kind = kind[0]
    if isinstance(kind, str) and kind in _EMPTY_VALUES:
        return _EMPTY_VALUES[kind]
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or not isinstance(required, list | tuple):
        return {}
    return {name: _smallest(properties.get(name), depth + 1) for name in required if isinstance(name, str)}


def _finished(request: CompletionRequest, reason: FinishReason, output_tokens: int) -> Finished:
    texts = [_text(message) for message in request.messages]
    calls = [f"{call.name} {call.arguments}" for message in request.messages for call in message.tool_calls]
    usage = Usage(input_tokens=sum(map(_words, texts + calls)), output_tokens=output_tokens)
    return Finished(finish_reason=reason, usage=usage, model=request.model)


def _last(request: CompletionRequest, role: Role) -> str:
    return next((_text(message) for message in reversed(request.messages) if message.role is role), "")


def _text(message: Message) -> str:
    return message.content or " ".join(part.text for part in message.parts if isinstance(part, TextPart))


def _words(text: str) -> int:
    return len(text.split())
