"""The transcripts against the types of the vendors' own client libraries: requests hold no field that these don't know,
answers and events are what they read."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import anthropic.types
import groq.types.chat
import openai.types.chat
import openai.types.responses
import orjson
import pytest
import typing_extensions
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from google.genai import types as google
from groq.types.chat import completion_create_params as groq_params
from mistralai.client import models as mistral
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as responses_params
from pydantic import ConfigDict, TypeAdapter

from .transcripts import Transcript, transcripts

RETIRED = {"temperature", "top_p", "top_k"}  # the library has models alone that refuse them; older models take them
UNLISTED = {"stream_options"}  # Groq's reference has it (https://console.groq.com/docs/api-reference), its library not

_SHOWN = [each for each in transcripts() if each.provider in ("anthropic", "openai", "google", "groq", "mistral")]
ANSWERED = [each for each in _SHOWN if each.succeeds]


@pytest.fixture(scope="module", autouse=True)
def strict() -> None:
    """Their typed dictionaries take any key unless they are told not to."""
    for module in [each for name, each in sys.modules.items() if name.startswith(("anthropic.", "openai.", "groq."))]:
        for kind in vars(module).values():
            if isinstance(kind, type) and typing_extensions.is_typeddict(kind):
                kind.__pydantic_config__ = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def is_responses(transcript: Transcript) -> bool:
    return transcript.request["path"].endswith("/responses")


def body_types(transcript: Transcript) -> Iterator[tuple[Any, Any]]:
    """Parts of the request, each with its type."""
    body, streamed = transcript.request["body"], transcript.streamed
    match transcript.provider:
        case "anthropic":
            kind = MessageCreateParamsStreaming if streamed else MessageCreateParamsNonStreaming
            yield kind, {name: value for name, value in body.items() if name not in RETIRED}
        case "openai" if is_responses(transcript):
            params = responses_params
            yield params.ResponseCreateParamsStreaming if streamed else params.ResponseCreateParamsNonStreaming, body
        case "openai":
            params = chat_params
            yield (
                params.CompletionCreateParamsStreaming if streamed else params.CompletionCreateParamsNonStreaming,
                body,
            )
        case "groq":
            listed = {name: value for name, value in body.items() if name not in UNLISTED}
            yield groq_params.CompletionCreateParams, listed
        case "mistral":
            yield mistral.ChatCompletionStreamRequest if streamed else mistral.ChatCompletionRequest, body
        case "google":
            yield from _google(dict(body))


def _google(body: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    singles = {"systemInstruction": google.Content, "generationConfig": google.GenerationConfig}
    singles["toolConfig"] = google.ToolConfig
    many = {"contents": google.Content, "tools": google.Tool, "safetySettings": google.SafetySetting}
    for name, kind in singles.items():
        if name in body:
            yield kind, body.pop(name)
    for name, kind in many.items():
        yield from ((kind, each) for each in body.pop(name, ()))
    assert set(body) <= {"cachedContent"}


ANSWERS: dict[str, tuple[Any, Any]] = {
    "anthropic": (anthropic.types.Message, anthropic.types.RawMessageStreamEvent),
    "openai": (openai.types.chat.ChatCompletion, openai.types.chat.ChatCompletionChunk),
    "groq": (groq.types.chat.ChatCompletion, groq.types.chat.ChatCompletionChunk),
    "mistral": (mistral.ChatCompletionResponse, mistral.CompletionChunk),
    "google": (google.GenerateContentResponse, google.GenerateContentResponse),
}


@cache
def response_events() -> dict[str, Any]:
    """The Responses API's events by their `type`: each is checked as what it says it is."""
    kinds = (kind for name, kind in vars(openai.types.responses).items() if name.endswith("Event"))
    models = (kind for kind in kinds if isinstance(kind, type) and "type" in getattr(kind, "model_fields", ()))
    return {told: kind for kind in models for told in typing.get_args(kind.model_fields["type"].annotation)}


def event_kind(transcript: Transcript) -> Callable[[Any], Any]:
    if is_responses(transcript):
        return lambda event: response_events()[event["type"]]
    return lambda event: ANSWERS[transcript.provider][1]


@pytest.mark.parametrize("transcript", _SHOWN, ids=str)
def test_requests_are_of_the_librarys_types(transcript: Transcript) -> None:
    parts = list(body_types(transcript))
    assert parts
    for kind, part in parts:
        adapter(kind).validate_python(part)


@pytest.mark.parametrize("transcript", ANSWERED, ids=str)
def test_answers_are_of_the_librarys_types(transcript: Transcript) -> None:
    if not transcript.streamed:
        kind = openai.types.responses.Response if is_responses(transcript) else ANSWERS[transcript.provider][0]
        adapter(kind).validate_python(transcript.response["body"])
        return
    lines = [line[5:].strip() for line in transcript.events.splitlines() if line.startswith(b"data:")]
    events = [orjson.loads(line) for line in lines if line.startswith(b"{")]
    kind_of = event_kind(transcript)
    assert events
    for event in events:
        if event.get("type") != "ping":
            adapter(kind_of(event)).validate_python(event)
