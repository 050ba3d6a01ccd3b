"""Embeddings of the Gemini API. Source: https://ai.google.dev/api/embeddings."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from .embedding import vector_of
from .gemini_errors import count, error, malformed, objects, typed, unsendable
from .ports import EncodedCall
from .types import EmbeddingRequest, ProviderEmbeddings, Usage

MAX_INPUTS: Final = 100


def embedding_call_of(request: EmbeddingRequest) -> EncodedCall:
    """One call for all texts. `options`, such as `taskType`, go over the request of each. Raises
    UnsendableRequestError for more texts than a call takes."""
    if len(request.inputs) > MAX_INPUTS:
        raise unsendable(f"google takes at most {MAX_INPUTS} inputs at once, not {len(request.inputs)}")
    asked: dict[str, Any] = {} if request.dimensions is None else {"outputDimensionality": request.dimensions}
    requests = [
        {"model": f"models/{request.model}", "content": {"parts": [{"text": text}]}, **asked, **request.options}
        for text in request.inputs
    ]
    path = f"/v1beta/models/{quote(request.model, safe='')}:batchEmbedContents"
    return EncodedCall(path, {"requests": requests})


def embeddings_of(payload: Any) -> ProviderEmbeddings:
    """In the texts' order."""
    if not isinstance(payload, dict):
        raise malformed("an answer is not an object")
    if "error" in payload:
        raise error(payload, status=None, retry_after=None)
    vectors = [vector_of(each.get("values")) for each in objects(payload, "embeddings")]
    whole = tuple(vector for vector in vectors if vector is not None)
    if len(whole) != len(vectors):
        raise malformed("a vector is not a list of numbers")
    counts = typed(payload, "usageMetadata", dict)
    told = counts is not None and "promptTokenCount" in counts
    return ProviderEmbeddings(whole, Usage(count(counts, "promptTokenCount")) if counts and told else None)
