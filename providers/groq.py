"""Groq's chat completions.

Sources: https://console.groq.com/docs/api-reference#chat-create, https://console.groq.com/docs/errors,
https://console.groq.com/docs/flex-processing (status 498), https://console.groq.com/docs/tool-use (`tool_use_failed`),
https://github.com/groq/groq-python (`x_groq` in chunks).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .errors import ProviderBadResponseError, ProviderError, ProviderUnavailableError
from .openai_dialect import ChatCompletionsCodec
from .openai_errors import ERRORS, Verdict
from .types import Usage


class GroqCodec(ChatCompletionsCodec):
    """Under https://api.groq.com. A stream's usage comes in `x_groq` too, and so may the reason why it broke off."""

    provider = "groq"
    path = "/openai/v1/chat/completions"
    max_tokens_field = "max_completion_tokens"
    errors: ClassVar[Mapping[str | int, Verdict]] = {
        **ERRORS,
        498: Verdict(ProviderUnavailableError),  # the flex tier is full
        # the model wrote what Groq itself can't parse: another sample may be well formed
        "tool_use_failed": Verdict(ProviderBadResponseError),
        "json_validate_failed": Verdict(ProviderBadResponseError),
    }

    def usage(self, payload: dict[str, Any]) -> Usage | None:
        if (usage := super().usage(payload)) is not None:
            return usage
        extra = self.typed(payload, "x_groq", dict)
        return super().usage(extra) if extra else None

    def carried_error(self, payload: dict[str, Any]) -> ProviderError | None:
        extra = self.typed(payload, "x_groq", dict)
        return super().carried_error(extra if extra and extra.get("error") else payload)
