"""OpenRouter's routing variants: one model by several names, which say how it is served. A variant that its catalog
lists, such as `:free`, is a model of its own. https://openrouter.ai/docs/guides/routing/model-variants/overview

They are told by the name alone: a declared provider may be OpenRouter too, and no other vendor's names end so.
"""

from __future__ import annotations

from collections.abc import Sequence

_ROUTING = (":nitro", ":floor", ":exacto", ":online")


def model_itself(model: str) -> str:
    """The model that the name stands for."""
    while model.endswith(_ROUTING):
        model = model.rpartition(":")[0]
    return model


def names_of(model: str) -> Sequence[str]:
    """All that stand for it, each with one suffix at most."""
    return [model] if model.endswith(_ROUTING) else [model, *(model + suffix for suffix in _ROUTING)]
