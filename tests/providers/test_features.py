"""What a vendor or a model can't do is refused by name, before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from providers.errors import UnsupportedFeatureError
from providers.features import Feature, check_features
from providers.types import (
    CompletionRequest,
    FilePart,
    ImagePart,
    Media,
    Message,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Tool,
)

DATA = Media(data="aGk=", media_type="image/png")
LINK = Media(url="https://example.com/a")


def asked(model: str = "m", *parts: Any, **changes: Any) -> CompletionRequest:
    return CompletionRequest(model, (Message(Role.USER, None if parts else "x", parts=parts),), **changes)


@pytest.mark.parametrize(
    ("request_", "feature"),
    [
        (asked("m", ImagePart(DATA)), Feature.IMAGE_DATA),
        (asked("m", ImagePart(LINK)), Feature.IMAGE_URL),
        (asked("m", FilePart(DATA)), Feature.FILE_DATA),
        (asked("m", FilePart(LINK)), Feature.FILE_URL),
        (asked("m", FilePart(DATA, cite=True)), Feature.CITED_FILES),
        (asked(tools=(Tool("f"),)), Feature.TOOLS),
        (asked(seed=0), Feature.SEED),
        (asked(response_format=ResponseFormat()), Feature.JSON_OBJECT),
        (asked(response_format=ResponseFormat({})), Feature.JSON_SCHEMA),
        (asked(reasoning_effort=ReasoningEffort.LOW), Feature.REASONING_EFFORT),
        (asked(logprobs=0), Feature.LOGPROBS),
    ],
)
def test_each_is_refused_by_who_does_not_offer_it(request_: CompletionRequest, feature: Feature) -> None:
    with pytest.raises(UnsupportedFeatureError, match=rf"alpha has no {feature} \(model m\)") as caught:
        check_features(request_, "alpha", frozenset(Feature) - {feature})
    assert (caught.value.sent, caught.value.code) == (False, "BAD_USER_INPUT")
    check_features(request_, "alpha", frozenset({feature, Feature.FILE_DATA}))


def test_a_model_that_is_known_not_to_is_told_by_its_name() -> None:
    sight = asked("llama-3.3-70b-versatile", ImagePart(DATA))
    with pytest.raises(UnsupportedFeatureError, match=r"groq has no images \(model llama-3.3-70b-versatile\)"):
        check_features(sight, "groq", frozenset(Feature))
    check_features(asked("llama-99", ImagePart(DATA)), "groq", frozenset(Feature))


def test_no_thinking_is_nothing_to_offer() -> None:
    check_features(asked(reasoning_effort=ReasoningEffort.NONE), "alpha", frozenset())
