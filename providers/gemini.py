"""The Gemini API's wire format (v1beta), sans-IO.

Source: https://ai.google.dev/api/generate-content; the modules beside this one name theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .errors import ProviderError
from .features import Feature, check_features
from .fold import fold
from .gemini_embeddings import embedding_call_of, embeddings_of
from .gemini_errors import PROVIDER, error, malformed
from .gemini_request import calling_config_of, contents_of, declaration_of, generation_config_of
from .gemini_stream import GeminiStreamDecoder
from .ports import EncodedCall
from .types import CompletionRequest, Credentials, EmbeddingRequest, ProviderCompletion, ProviderEmbeddings, Role


class GeminiCodec:
    """Google's Gemini models under https://generativelanguage.googleapis.com.

    `end_user` is not forwarded: the API has no field for it, and it stays in our own ledger; nor are the names of
    files, which only Google's own tools read. A tool call that came without an id gets one by its position ("call_0").
    A prompt cache is an option (`cachedContent`), and so are `safetySettings` and Google's own tools.
    """

    provider = PROVIDER
    features = frozenset(Feature) - {Feature.CITED_FILES}

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """Raises UnsupportedFeatureError, UnsendableRequestError for tool arguments that are not a JSON object, for a
        tool result whose call is not in the history and for an address whose media type nothing tells.

        `options` go over the body; their `generationConfig` goes over ours key by key.
        """
        check_features(request, PROVIDER, self.features)
        body: dict[str, Any] = {}
        if system := [{"text": message.content or ""} for message in request.messages if message.role is Role.SYSTEM]:
            body["systemInstruction"] = {"parts": system}
        body["contents"] = contents_of(request.messages, request.model)
        if request.tools:
            body["tools"] = [{"functionDeclarations": [declaration_of(tool) for tool in request.tools]}]
        if request.tool_choice:
            body["toolConfig"] = {"functionCallingConfig": calling_config_of(request.tool_choice)}
        options = dict(request.options)
        config = generation_config_of(request)
        if isinstance(extra := options.get("generationConfig"), Mapping):
            options["generationConfig"] = {**config, **extra}
        if config:
            body["generationConfig"] = config
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return EncodedCall(f"/v1beta/models/{quote(request.model, safe='')}:{method}", {**body, **options})

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return {"x-goog-api-key": credentials.api_key}

    def decode(self, payload: Any) -> ProviderCompletion:
        """A plain answer is a stream of one chunk. Raises ProviderContentFilteredError for a blocked prompt."""
        events = GeminiStreamDecoder().response(payload)
        if not payload.get("candidates"):
            raise malformed("no candidates")
        return fold(events)

    def decoder(self) -> GeminiStreamDecoder:
        return GeminiStreamDecoder()

    def encode_embeddings(self, request: EmbeddingRequest) -> EncodedCall:
        return embedding_call_of(request)

    def decode_embeddings(self, payload: Any) -> ProviderEmbeddings:
        return embeddings_of(payload)

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        """By the status name of Google's error model. Without `alt=sse` the stream endpoint sends a list of one."""
        if isinstance(payload, list) and payload:
            payload = payload[0]
        return error(payload, status=status, retry_after=retry_after)
