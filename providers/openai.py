"""OpenAI: the Responses API for models that think, chat completions for the others.

Sources: https://platform.openai.com/docs/api-reference/chat/create,
https://platform.openai.com/docs/guides/migrate-to-responses (which API for what),
https://platform.openai.com/docs/guides/safety-best-practices (`safety_identifier`, in place of `user`),
https://platform.openai.com/docs/guides/flex-processing, https://platform.openai.com/docs/guides/priority-processing
(tiers with prices of their own; the answer tells which one it was billed in),
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle (Azure's v1 API).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from .errors import (
    ProviderContentFilteredError,
    ProviderInvalidRequestError,
    ProviderUnavailableError,
    UnsupportedFeatureError,
)
from .features import Feature, check_features
from .fold import fold
from .openai_embeddings import EmbeddingsCodec
from .openai_errors import ERRORS, Verdict
from .openai_responses_request import check_settings, responses_body
from .openai_responses_stream import OTHER_TIERS, ResponsesDecoder
from .openai_stream import ChatCompletionsDecoder
from .ports import EncodedCall
from .sse import ServerSentEvent
from .types import CompletionRequest, Credentials, FilePart, ProviderCompletion, StreamEvent, Usage

_THINKING = re.compile(r"(?:gpt-[5-9]|o\d|codex-|computer-use)(?!.*-search-api)")


class OpenAICodec(EmbeddingsCodec):
    """Under https://api.openai.com/v1. OpenAI's limit for `end_user` is 64 characters.

    What only one of its two APIs has words for goes there, whatever the model: stop texts and seeds to chat
    completions, files by their address to Responses.
    """

    provider = "openai"
    max_tokens_field = "max_completion_tokens"
    end_user_field = "safety_identifier"
    errors: ClassVar[Mapping[str | int, Verdict]] = {
        **ERRORS,
        "server_error": Verdict(ProviderUnavailableError),
        **dict.fromkeys(
            (
                *("invalid_prompt", "invalid_image", "invalid_image_format", "invalid_base64_image"),
                *("invalid_image_url", "image_too_large", "image_too_small", "image_parse_error"),
                *("invalid_image_mode", "image_file_too_large", "unsupported_image_media_type"),
                *("empty_image_file", "failed_to_download_image", "image_file_not_found"),
            ),
            Verdict(ProviderInvalidRequestError),
        ),
        **dict.fromkeys(
            ("bio_policy", "misalignment_policy_violation", "image_content_policy_violation"),
            Verdict(ProviderContentFilteredError),
        ),
    }
    features = frozenset(Feature) - {Feature.CITED_FILES}

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """`options` go over the body. Raises UnsupportedFeatureError, UnsendableRequestError."""
        check_settings(request, self.provider)
        linked = _has_linked_files(request)
        if request.stop or request.seed is not None:
            if linked:
                feature = f"{Feature.FILE_URL} with stop or seed"
                raise UnsupportedFeatureError(feature, provider=self.provider, model=request.model)
        elif linked or _THINKING.match(request.model):
            check_features(request, self.provider, self.features)
            body = responses_body(request, self.provider)
            return EncodedCall("/responses", {**body, "stream": True} if stream else body)
        return super().encode(request, stream=stream)

    def decode(self, payload: Any) -> ProviderCompletion:
        if isinstance(payload, dict) and payload.get("object") == "response":
            return fold(ResponsesDecoder(self).response(payload))
        return super().decode(payload)

    def decoder(self) -> ChatCompletionsDecoder:
        return _Decoder(self)

    def usage(self, payload: dict[str, Any]) -> Usage | None:
        usage = super().usage(payload)
        return replace(usage, off_table=True) if usage and payload.get("service_tier") in OTHER_TIERS else usage


class AzureOpenAICodec(OpenAICodec):
    """Azure OpenAI's v1 API, under https://<resource>.openai.azure.com/openai/v1; a model is the name of a deployment.
    A filtered prompt is refused with `content_filter`, as at OpenAI's."""

    provider = "azure"

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return {"api-key": credentials.api_key}


class _Decoder(ChatCompletionsDecoder):
    """Of either stream: the events of Responses have names."""

    __slots__ = ("_responses",)

    def __init__(self, codec: OpenAICodec) -> None:
        super().__init__(codec)
        self._responses: ResponsesDecoder | None = None

    @property
    def done(self) -> bool:
        return self._done if self._responses is None else self._responses.done

    def feed(self, event: ServerSentEvent) -> Sequence[StreamEvent]:
        if self._responses is None:
            if event.event == "message":
                return super().feed(event)
            self._responses = ResponsesDecoder(self._codec)
        return self._responses.feed(event)


def _has_linked_files(request: CompletionRequest) -> bool:
    parts = (part for message in request.messages for part in message.parts)
    return any(isinstance(part, FilePart) and part.media.url is not None for part in parts)
