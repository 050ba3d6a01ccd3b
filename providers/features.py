"""What a request asks beyond text, and what refuses it where a vendor or a model can't do it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from .capabilities import FACTS, ModelCapability
from .errors import UnsupportedFeatureError
from .types import CompletionRequest, FilePart, ImagePart, Message, ReasoningEffort


class Feature(StrEnum):
    """The value is what a refusal calls it."""

    IMAGE_DATA = "images"
    IMAGE_URL = "images by URL"
    FILE_DATA = "files"
    FILE_URL = "files by URL"
    CITED_FILES = "citations of files"
    TOOLS = "tools"
    JSON_OBJECT = "responseFormat json"
    JSON_SCHEMA = "responseFormat jsonSchema"
    REASONING_EFFORT = "reasoningEffort"
    SEED = "seed"
    LOGPROBS = "logprobs"


_OF_THE_MODEL = {
    Feature.IMAGE_DATA: ModelCapability.IMAGES,
    Feature.IMAGE_URL: ModelCapability.IMAGES,
    Feature.TOOLS: ModelCapability.TOOLS,
    Feature.JSON_SCHEMA: ModelCapability.STRUCTURED_OUTPUT,
    Feature.REASONING_EFFORT: ModelCapability.REASONING,
}


def check_features(request: CompletionRequest, provider: str, offered: frozenset[Feature]) -> None:
    """Raises UnsupportedFeatureError for what the vendor's API lacks, and for what its page says the model can't do."""
    facts = FACTS.get((provider, request.model))
    for feature in _asked(request):
        capability = _OF_THE_MODEL.get(feature)
        if feature not in offered or (facts and capability and capability not in facts.capabilities):
            raise UnsupportedFeatureError(feature, provider=provider, model=request.model)


def _asked(request: CompletionRequest) -> Iterator[Feature]:
    if request.tools:
        yield Feature.TOOLS
    if request.response_format is not None:
        yield Feature.JSON_OBJECT if request.response_format.schema is None else Feature.JSON_SCHEMA
    if request.reasoning_effort not in (None, ReasoningEffort.NONE):
        yield Feature.REASONING_EFFORT
    if request.seed is not None:
        yield Feature.SEED
    if request.logprobs is not None:
        yield Feature.LOGPROBS
    for message in request.messages:
        yield from _asked_of(message)


def _asked_of(message: Message) -> Iterator[Feature]:
    for part in message.parts:
        if isinstance(part, ImagePart):
            yield Feature.IMAGE_DATA if part.media.url is None else Feature.IMAGE_URL
        elif isinstance(part, FilePart):
            yield Feature.FILE_DATA if part.media.url is None else Feature.FILE_URL
            if part.cite:
                yield Feature.CITED_FILES
