"""OpenAI's chat completions: the dialect as its author speaks it.

Sources: https://platform.openai.com/docs/api-reference/chat/create,
https://platform.openai.com/docs/guides/safety-best-practices (`safety_identifier`, in place of `user`),
https://platform.openai.com/docs/guides/flex-processing, https://platform.openai.com/docs/guides/priority-processing
(tiers with prices of their own; the answer tells which one it was billed in).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .openai_embeddings import EmbeddingsCodec
from .types import Usage

_OTHER_TIERS = ("flex", "priority", "scale")


class OpenAICodec(EmbeddingsCodec):
    """Under https://api.openai.com/v1. OpenAI's limit for `end_user` is 64 characters."""

    provider = "openai"
    max_tokens_field = "max_completion_tokens"
    end_user_field = "safety_identifier"

    def usage(self, payload: dict[str, Any]) -> Usage | None:
        usage = super().usage(payload)
        return replace(usage, off_table=True) if usage and payload.get("service_tier") in _OTHER_TIERS else usage
