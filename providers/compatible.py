"""Any server that speaks the chat-completions dialect: vLLM, Ollama, llama.cpp, LM Studio, TGI, a gateway.

Sources: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html,
https://docs.vllm.ai/en/latest/features/reasoning_outputs.html (`reasoning`, before that `reasoning_content`),
https://docs.ollama.com/api/openai-compatibility, https://lmstudio.ai/docs/developer/openai-compat,
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (`exceed_context_size_error`),
https://api-docs.deepseek.com/guides/thinking_mode (reasoning goes back where it led to a tool call).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .errors import ProviderContextLengthError
from .features import Feature
from .openai_embeddings import EmbeddingsCodec
from .openai_errors import ERRORS, Verdict
from .openai_reasoning import ClosingDecoder, own_blocks
from .types import Message

_FIELDS = ("reasoning", "reasoning_content")


class CompatibleCodec(EmbeddingsCodec):
    """The dialect without quirks. The base URL ends in /v1.

    What the dialect has words for is sent: what such a server can do depends on the model that it was started with, so
    the refusal is the server's own. It has none for a file by its URL. Reasoning goes back in the field it came in.
    """

    provider = "compatible"
    errors: ClassVar[Mapping[str | int, Verdict]] = {
        **ERRORS,
        "exceed_context_size_error": Verdict(ProviderContextLengthError),
    }
    features = frozenset(Feature) - {Feature.FILE_URL, Feature.CITED_FILES}

    def message(self, message: Message) -> dict[str, Any]:
        wire = super().message(message)
        for text, field in own_blocks(message, self.provider):
            if field in _FIELDS:
                wire[field] = wire.get(field, "") + text
        return wire

    def decoder(self) -> ClosingDecoder:
        return _Decoder(self, f"{self.provider}:{_FIELDS[0]}")


class _Decoder(ClosingDecoder):
    __slots__ = ()

    def opened(self, payload: dict[str, Any], key: str) -> None:
        parts = (choice.get(key) for choice in payload["choices"] if not choice.get("index"))
        field = _FIELDS[0] if any(part and part.get(_FIELDS[0]) for part in parts) else _FIELDS[1]
        self.signature = f"{self._codec.provider}:{field}"
