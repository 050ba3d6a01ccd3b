"""What the transcripts don't show of what Gemini models offer: what single models refuse, and odd grounding."""

from __future__ import annotations

from typing import Any

import pytest

from providers.errors import ProviderBadResponseError, UnsendableRequestError, UnsupportedFeatureError
from providers.gemini import GeminiCodec
from providers.types import (
    Citation,
    CompletionRequest,
    FilePart,
    ImagePart,
    Media,
    Message,
    ProviderCompletion,
    ReasoningBlock,
    ReasoningEffort,
    Role,
    TokenLogprob,
)
from tests.conformance.transcripts import transcripts
from tests.providers.test_openai_features import SHOWN

CODEC = GeminiCodec()
HI = Message(Role.USER, "hi")


def body(model: str, *messages: Message, **fields: Any) -> dict[str, Any]:
    return dict(CODEC.encode(CompletionRequest(model, messages or (HI,), **fields), stream=False).body)


def decoded(text: str, **candidate: Any) -> ProviderCompletion:
    content = {"parts": [{"text": text}], "role": "model"}
    return CODEC.decode({"candidates": [{"content": content, "finishReason": "STOP", **candidate}]})


def test_what_is_offered_is_shown() -> None:
    shown = {each.scenario for each in transcripts() if each.provider == CODEC.provider}
    offered = {SHOWN[feature] for feature in CODEC.features}
    assert offered <= shown
    assert {f"{scenario}_stream" for scenario in offered - {"parameters"}} <= shown


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash-lite", "minimal", {"thinkingBudget": 1024, "includeThoughts": True}),
        ("gemini-2.5-pro", "high", {"thinkingBudget": 24_576, "includeThoughts": True}),
        ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}),
        ("gemini-3-pro-preview", "medium", {"thinkingLevel": "HIGH", "includeThoughts": True}),
        ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "MEDIUM", "includeThoughts": True}),
        ("gemini-4-argon", "low", {"thinkingLevel": "LOW", "includeThoughts": True}),
    ],
)
def test_each_generation_thinks_in_its_own_words(model: str, effort: str, config: dict[str, Any]) -> None:
    encoded = body(model, reasoning_effort=ReasoningEffort(effort))
    assert encoded["generationConfig"] == {"thinkingConfig": config}


@pytest.mark.parametrize(
    ("model", "effort", "feature"),
    [
        ("gemini-2.0-flash", ReasoningEffort.LOW, "reasoningEffort"),
        ("gemini-2.5-pro", ReasoningEffort.NONE, "reasoningEffort none"),
        ("gemini-3.6-flash", ReasoningEffort.NONE, "reasoningEffort none"),
    ],
)
def test_what_a_model_refuses_is_told_before_it_is_asked(model: str, effort: ReasoningEffort, feature: str) -> None:
    with pytest.raises(UnsupportedFeatureError) as caught:
        body(model, reasoning_effort=effort)
    assert (caught.value.feature, caught.value.sent) == (feature, False)


def test_a_model_that_never_thinks_is_not_told_to_stop() -> None:
    assert "generationConfig" not in body("gemini-2.0-flash", reasoning_effort=ReasoningEffort.NONE)


def test_citations_of_files_are_not_to_be_had() -> None:
    with pytest.raises(UnsupportedFeatureError, match="citations of files"):
        body("gemini-4-argon", Message(Role.USER, parts=(FilePart(Media(url="https://a.example/a.pdf"), cite=True),)))


@pytest.mark.parametrize(
    ("part", "kind"),
    [(ImagePart(Media(url="https://a.example/png")), "an image"), (FilePart(Media(url="https://a.pdf/")), "a file")],
)
def test_an_address_that_tells_no_type_needs_one(part: ImagePart | FilePart, kind: str) -> None:
    with pytest.raises(UnsendableRequestError, match=f"the type of {kind} by URL: give its mediaType"):
        body("gemini-4-argon", Message(Role.USER, parts=(part,)))


def test_a_signature_without_a_text_goes_back_with_an_empty_one() -> None:
    blocks = (ReasoningBlock("", "google:a"), ReasoningBlock("", "google:b"))
    (content,) = body("gemini-4-argon", Message(Role.ASSISTANT, reasoning=blocks))["contents"]
    assert content == {"role": "model", "parts": [{"text": "", "thoughtSignature": "b"}]}


def test_sources_that_no_passage_names_stand_for_the_whole() -> None:
    chunks = [{"maps": {"uri": "https://maps.example/1", "title": "Zoo"}}, {"image": {}}]
    answer = decoded("Äh.", groundingMetadata={"groundingChunks": chunks})
    assert answer.citations == (Citation("https://maps.example/1", "Zoo"), Citation())


def test_a_place_within_a_character_or_past_the_end_is_the_nearest_before() -> None:
    sources = [{"startIndex": 1, "endIndex": 99, "uri": "u"}]
    assert decoded("Äh.", citationMetadata={"citationSources": sources}).citations == (Citation("u", start=0, end=3),)


def test_fewer_places_than_tokens_leave_some_without_the_likeliest() -> None:
    weighed = {"chosenCandidates": [{"token": "a", "logProbability": -1}, {"token": "b"}], "topCandidates": [{}]}
    assert decoded("ab", logprobsResult=weighed).logprobs == (TokenLogprob("a", -1.0), TokenLogprob("b", 0.0))


@pytest.mark.parametrize(
    "candidate",
    [
        {"logprobsResult": {"chosenCandidates": [{"token": "a", "logProbability": "x"}]}},
        {"logprobsResult": {"chosenCandidates": ["a"]}},
        {"groundingMetadata": {"groundingChunks": [], "groundingSupports": [{"groundingChunkIndices": [0]}]}},
        {"groundingMetadata": {"groundingSupports": [{"segment": {"endIndex": -1}}]}},
        {"citationMetadata": {"citationSources": [None]}},
    ],
)
def test_odd_figures_are_malformed(candidate: dict[str, Any]) -> None:
    with pytest.raises(ProviderBadResponseError):
        decoded("x", **candidate)
