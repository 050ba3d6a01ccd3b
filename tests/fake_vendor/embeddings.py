"""Embeddings of the fake vendor: each text's vector begins with its words' number. The first may hold directives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OPENAI = "/embeddings"
GEMINI = ":batchEmbedContents"
_DIMENSIONS = 4


def asks_for_embeddings(path: str) -> bool:
    return path.endswith((OPENAI, GEMINI))


def texts_of(body: Mapping[str, Any]) -> list[str]:
    if "requests" in body:
        return [each["content"]["parts"][0]["text"] for each in body["requests"]]
    return list(body["input"])


def model_of(path: str, body: Mapping[str, Any]) -> str:
    return body["model"] if "model" in body else path.rpartition("/models/")[2].removesuffix(GEMINI)


def answer(body: Mapping[str, Any]) -> dict[str, Any]:
    texts = texts_of(body)
    tokens = sum(len(text.split()) for text in texts)
    if "requests" in body:
        size = body["requests"][0].get("outputDimensionality") or _DIMENSIONS
        vectors = [{"values": _vector(text, size)} for text in texts]
        return {"embeddings": vectors, "usageMetadata": {"promptTokenCount": tokens}}
    size = body.get("dimensions") or body.get("output_dimension") or _DIMENSIONS
    data = [{"object": "embedding", "index": at, "embedding": _vector(text, size)} for at, text in enumerate(texts)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data[::-1], "model": body["model"], "usage": usage}


def _vector(text: str, size: int) -> list[float]:
    return [float(len(text.split())), *(0.5 for _ in range(size - 1))]
