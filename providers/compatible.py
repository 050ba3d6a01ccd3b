"""Any server that speaks the chat-completions dialect: vLLM, Ollama, llama.cpp, TGI, LM Studio, a gateway.

Sources: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html,
https://docs.vllm.ai/en/latest/features/reasoning_outputs.html (`reasoning`, before that `reasoning_content`),
https://docs.ollama.com/api/openai-compatibility.
"""

from __future__ import annotations

from .openai_dialect import ChatCompletionsCodec


class CompatibleCodec(ChatCompletionsCodec):
    """The dialect without quirks, under the name that the operator gave the server. The base URL ends in /v1."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
