"""OpenRouter's routing variants: one model by several names, which say how it is served. A variant that its catalog
lists, such as `:free`, is a model of its own. https://openrouter.ai/docs/guides/routing/model-variants/overview"""

from __future__ import annotations

from collections.abc import Sequence

_PROVIDER = "openrouter"
_ROUTING = (":nitro", ":floor", ":exacto", ":online")


def model_itself(provider: str, model: str) -> str:
    """The model that the name stands for."""
    while provider == _PROVIDER and model.endswith(_ROUTING):
        model = model.rpartition(":")[0]
    return model


def names_of(provider: str, model: str) -> Sequence[str]:
    """All that stand for it, each with one suffix at most."""
    if provider != _PROVIDER or model.endswith(_ROUTING):
        return [model]
    return [model, *(model + suffix for suffix in _ROUTING)]
