"""Groq's chat completions.

Sources: https://console.groq.com/docs/api-reference#chat-create, https://console.groq.com/docs/errors,
https://console.groq.com/docs/flex-processing (status 498), https://console.groq.com/docs/tool-use (`tool_use_failed`),
https://console.groq.com/docs/spend-limits (`blocked_api_access`), https://console.groq.com/docs/performance-tier
(paid by capacity), https://console.groq.com/docs/reasoning, https://console.groq.com/docs/structured-outputs,
https://console.groq.com/docs/vision, https://github.com/groq/groq-python (`x_groq` in chunks, citations).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from .errors import ProviderBadResponseError, ProviderError, ProviderUnavailableError, UnsupportedFeatureError
from .features import Feature
from .openai_dialect import ChatCompletionsCodec
from .openai_errors import ERRORS, UNPAID, Verdict
from .openai_stream import ChatCompletionsDecoder
from .ports import EncodedCall
from .types import Citation, CompletionRequest, ReasoningEffort, Usage

_CITATIONS = ("document_citation", "function_citation")


class GroqCodec(ChatCompletionsCodec):
    """Under https://api.groq.com. A stream's usage comes in `x_groq` too, and so may the reason why it broke off.

    A JSON Schema goes neither with a stream nor with tools. Qwen's reasoning stands in the text unless it is asked for
    as `parsed`; Qwen thinks or does not, in no degrees, and GPT-OSS always thinks.
    """

    provider = "groq"
    path = "/openai/v1/chat/completions"
    max_tokens_field = "max_completion_tokens"
    errors: ClassVar[Mapping[str | int, Verdict]] = {
        **ERRORS,
        498: Verdict(ProviderUnavailableError),  # the flex tier is full
        "blocked_api_access": UNPAID,  # the organisation's spend limit
        # the model wrote what Groq itself can't parse: another sample may be well formed
        "tool_use_failed": Verdict(ProviderBadResponseError),
        "json_validate_failed": Verdict(ProviderBadResponseError),
    }
    features = frozenset(
        {
            *(Feature.IMAGE_DATA, Feature.IMAGE_URL, Feature.TOOLS, Feature.SEED),
            *(Feature.JSON_OBJECT, Feature.JSON_SCHEMA, Feature.REASONING_EFFORT),
        }
    )

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        if request.response_format is not None and request.response_format.schema is not None:
            if stream:
                raise self._lacks(f"{Feature.JSON_SCHEMA} in a stream", request)
            if request.tools:
                raise self._lacks(f"{Feature.JSON_SCHEMA} together with tools", request)
        return super().encode(request, stream=stream)

    def decoder(self) -> ChatCompletionsDecoder:
        return _Decoder(self)

    def reasoning_fields(self, request: CompletionRequest) -> Mapping[str, Any]:
        effort = request.reasoning_effort
        if request.model.startswith("qwen/"):
            fields = {} if "include_reasoning" in request.options else {"reasoning_format": "parsed"}
            thinks = "none" if effort is ReasoningEffort.NONE else "default"
            return fields if effort is None else {**fields, "reasoning_effort": thinks}
        if request.model.startswith("openai/gpt-oss"):
            if effort is ReasoningEffort.NONE:
                raise self._lacks("reasoningEffort none", request)
            return {"reasoning_effort": ReasoningEffort.LOW if effort is ReasoningEffort.MINIMAL else effort}
        return super().reasoning_fields(request)

    def usage(self, payload: dict[str, Any]) -> Usage | None:
        usage = super().usage(payload)
        if usage is None and (extra := self.typed(payload, "x_groq", dict)):
            usage = super().usage(extra)
        return replace(usage, off_table=True) if usage and payload.get("service_tier") == "performance" else usage

    def carried_error(self, payload: dict[str, Any]) -> ProviderError | None:
        extra = self.typed(payload, "x_groq", dict)
        return super().carried_error(extra if extra and extra.get("error") else payload)

    def _lacks(self, what: str, request: CompletionRequest) -> UnsupportedFeatureError:
        return UnsupportedFeatureError(what, provider=self.provider, model=request.model)


class _Decoder(ChatCompletionsDecoder):
    """Groq cites the `documents` of its options, and tools' results, by the ids that the caller gave them."""

    __slots__ = ()

    def _citations(self, part: dict[str, Any]) -> Iterator[Citation]:
        codec = self._codec
        for annotation in codec.objects(part, "annotations"):
            for told in (codec.typed(annotation, kind, dict) for kind in _CITATIONS):
                if told:
                    named = codec.typed(told, "document_id", str) or codec.typed(told, "tool_call_id", str)
                    yield replace(codec.citation(told), title=named)
