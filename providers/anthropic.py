"""Anthropic's Messages API (version 2023-06-01), sans-IO.

Source: https://platform.claude.com/docs/en/api/messages; the modules beside this one name theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .anthropic_errors import PROVIDER, error, malformed, required, typed
from .anthropic_models import model_of
from .anthropic_request import choice_of, system_of, tool_of, turns_of
from .anthropic_stream import AnthropicStreamDecoder, finish_reason_of, usage_of
from .errors import ProviderError
from .features import Feature, check_features
from .fold import fold
from .ports import EncodedCall
from .types import CompletionRequest, Credentials, Finished, ProviderCompletion, StreamEvent

_VERSION: Final = {"anthropic-version": "2023-06-01"}


class AnthropicCodec:
    """Claude models under https://api.anthropic.com.

    Blocks of server tools, which only options ask for, are not kept. A schema's name has no field, and every schema is
    strict.
    """

    provider = PROVIDER
    features = frozenset(
        {
            *(Feature.IMAGE_DATA, Feature.IMAGE_URL, Feature.FILE_DATA, Feature.FILE_URL, Feature.CITED_FILES),
            *(Feature.TOOLS, Feature.JSON_SCHEMA, Feature.REASONING_EFFORT),
        }
    )

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        """`options` go over the body; what they say of `output_config` goes over ours. Raises UnsupportedFeatureError,
        UnsendableRequestError for tool arguments that are not a JSON object and for media that the API has no type
        for."""
        check_features(request, PROVIDER, self.features)
        model = model_of(request.model)
        model.check(request)
        thinking = model.thinking(request)
        optional = {
            "system": system_of(request.messages),
            "tools": [tool_of(tool) for tool in request.tools],
            "tool_choice": choice_of(request.tool_choice) if request.tool_choice else None,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop_sequences": list(request.stop),
            "metadata": {"user_id": request.end_user} if request.end_user else None,
            "output_config": _output_config(request, thinking.pop("output_config", {})),
        }
        body = {
            "model": request.model,
            **thinking,
            "messages": turns_of(request.messages, model),
            **{name: value for name, value in optional.items() if value not in (None, [])},
            **{name: value for name, value in request.options.items() if name != "output_config"},
            "stream": stream,  # after the options: how the answer travels is not the caller's to change
        }
        return EncodedCall("/v1/messages", body, _VERSION)

    def headers(self, credentials: Credentials) -> Mapping[str, str]:
        return {"x-api-key": credentials.api_key}

    def decode(self, payload: Any) -> ProviderCompletion:
        """A plain answer is a stream whose blocks come whole; tool arguments are the compact JSON text of `input`."""
        if not isinstance(payload, dict):
            raise malformed("an answer is not an object")
        if payload.get("type") == "error":
            raise error(payload, status=None, retry_after=None)
        model = typed(payload, "model", str)
        decoder = AnthropicStreamDecoder(model or "")
        events: list[StreamEvent] = []
        for index, block in enumerate(required(payload, "content", list)):
            events.extend(decoder.start(index, block))
            events.extend(decoder.stop(index))
        figures = typed(payload, "usage", dict)
        usage = usage_of(figures) if figures else None
        events.append(Finished(finish_reason_of(payload), usage, model))
        return fold(events)

    def decoder(self) -> AnthropicStreamDecoder:
        return AnthropicStreamDecoder()

    def error(self, status: int, payload: Any, retry_after: float | None) -> ProviderError:
        """By the `type` of the error object; by status where that is missing or new."""
        return error(payload, status=status, retry_after=retry_after)


def _output_config(request: CompletionRequest, effort: Mapping[str, Any]) -> Any:
    """Answers in a schema are asked for beside the effort, in one object; None where nothing is."""
    schema = request.response_format and request.response_format.schema
    form = {} if schema is None else {"format": {"type": "json_schema", "schema": schema}}
    given = request.options.get("output_config", {})
    if not isinstance(given, Mapping):
        return given
    return {**effort, **form, **given} or None
