"""OpenAI's chat completions: the dialect as its author speaks it.

Sources: https://platform.openai.com/docs/api-reference/chat/create,
https://platform.openai.com/docs/guides/safety-best-practices (`safety_identifier`, in place of `user`).
"""

from __future__ import annotations

from .openai_dialect import ChatCompletionsCodec


class OpenAICodec(ChatCompletionsCodec):
    """Under https://api.openai.com/v1. OpenAI's limit for `end_user` is 64 characters."""

    provider = "openai"
    max_tokens_field = "max_completion_tokens"
    end_user_field = "safety_identifier"
