"""OpenRouter's chat completions.

Sources: https://openrouter.ai/docs/api-reference/chat-completion,
https://openrouter.ai/docs/use-cases/usage-accounting (usage and cost in every answer),
https://openrouter.ai/docs/api/reference/errors-and-debugging (errors, also inside a 200),
https://openrouter.ai/docs/client-sdks/python/components/apierrortype (`error_type`),
https://openrouter.ai/docs/use-cases/reasoning-tokens (`reasoning`, `reasoning_details`),
https://openrouter.ai/docs/features/multimodal/pdfs, https://openrouter.ai/docs/features/prompt-caching,
https://openrouter.ai/docs/features/provider-routing (`require_parameters`), https://openrouter.ai/docs/use-cases/byok.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar, Final

import orjson

from .errors import (
    ProviderAuthError,
    ProviderContentFilteredError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsendableRequestError,
)
from .features import Feature
from .figures import is_cost
from .openai_embeddings import EmbeddingsCodec
from .openai_errors import ERRORS, UNPAID, Verdict, object_of
from .openai_reasoning import own_blocks
from .openai_stream import ChatCompletionsDecoder
from .ports import EncodedCall
from .types import CompletionRequest, Finished, Message, ReasoningDelta, StreamEvent, Usage

_FILTERED = Verdict(ProviderContentFilteredError)
_BUDGETS = ("openrouter_credits", "openrouter_key_limit", "openrouter_guardrail_budget", "openrouter_workspace_budget")
_LIMITS = {
    **dict.fromkeys(_BUDGETS, UNPAID),
    "openrouter_in_flight_budget": Verdict(ProviderRateLimitedError),  # a 402 that passes as calls end
}
_TEXTS: Final = {"reasoning.text": "text", "reasoning.summary": "summary"}  # where such a detail has its text


class OpenRouterCodec(EmbeddingsCodec):
    """Under https://openrouter.ai/api/v1. `cost` is in credits, of which one is one US dollar.

    What a model can do is its own affair, so nothing is refused here; but OpenRouter drops what a model's host does not
    know, so that an answer in JSON, or with log-probabilities, goes to hosts alone that do, unless `provider` in the
    options says otherwise. All reasoning details of an answer are one block, which goes back as they came.
    """

    provider = "openrouter"
    errors: ClassVar[Mapping[str | int, Verdict]] = {
        **ERRORS,
        "authentication": Verdict(ProviderAuthError),
        "permission_denied": Verdict(ProviderAuthError),
        "payment_required": UNPAID,
        "rate_limit_exceeded": Verdict(ProviderRateLimitedError),
        "timeout": Verdict(ProviderTimeoutError),
        "refusal": _FILTERED,
        **dict.fromkeys(
            ("provider_overloaded", "provider_unavailable", "server", "unmapped"), Verdict(ProviderUnavailableError)
        ),
        **dict.fromkeys(
            (
                *("invalid_request", "invalid_prompt", "not_found", "precondition_failed", "unprocessable"),
                *("max_tokens_exceeded", "token_limit_exceeded", "string_too_long", "payload_too_large"),
            ),
            Verdict(ProviderInvalidRequestError),
        ),
    }

    features = frozenset(Feature) - {Feature.CITED_FILES}

    def encode(self, request: CompletionRequest, *, stream: bool) -> EncodedCall:
        call = super().encode(request, stream=stream)
        if request.response_format is None and request.logprobs is None:
            return call
        return replace(call, body={"provider": {"require_parameters": True}, **call.body})

    def message(self, message: Message) -> dict[str, Any]:
        wire = super().message(message)
        details = [detail for _, rest in own_blocks(message, self.provider) for detail in self._details(rest)]
        if details:
            wire["reasoning_details"] = details
        if message.cache and wire["content"]:
            wire["content"] = _cached(wire["content"])
        return wire

    def decoder(self) -> ChatCompletionsDecoder:
        return _Decoder(self)

    def reasoning_fields(self, request: CompletionRequest) -> Mapping[str, Any]:
        return {"reasoning": None if request.reasoning_effort is None else {"effort": request.reasoning_effort}}

    def reasoning(self, part: dict[str, Any]) -> Iterable[StreamEvent]:
        """Where it is not told as text, the details have it."""
        if (found := super().reasoning(part)) or not part.get("reasoning_details"):
            return found
        texts = (
            self.typed(each, field, str) for each in self.objects(part, "reasoning_details") if (field := _place(each))
        )
        text = "".join(text for text in texts if text)
        return (ReasoningDelta(text),) if text else ()

    def codes(self, error: dict[str, Any]) -> Iterable[Any]:
        """`error_type` is stable over vendors; `code` is the HTTP status, or what it would have been."""
        return _metadata(error).get("error_type"), error.get("code")

    def verdict(self, error: dict[str, Any], status: int | None) -> Verdict:
        """A 403 is a flagged input (it tells `reasons`), a spent budget, or a key without the right."""
        metadata = _metadata(error)
        if isinstance(metadata.get("reasons"), list):
            return _FILTERED
        source = metadata.get("limit_source")
        if isinstance(source, str) and source in _LIMITS:
            return _LIMITS[source]
        return super().verdict(error, status)

    def counted(self, counts: dict[str, Any]) -> Usage:
        """With the customer's own key for a vendor, `cost` is OpenRouter's fee; the vendor bills its part beside it."""
        cost = self._amount(counts, "cost")
        if cost is not None and counts.get("is_byok") is True:
            cost += self._amount(self.typed(counts, "cost_details", dict) or {}, "upstream_inference_cost") or 0
        return replace(super().counted(counts), cost=cost)

    def _amount(self, source: dict[str, Any], key: str) -> Decimal | None:
        """Its shortest decimal form is what the vendor wrote."""
        amount = source.get(key)
        if amount is None:
            return None
        if not is_cost(amount):
            raise self.malformed(f"{key} is not an amount")
        return Decimal(str(amount))

    def _details(self, text: str) -> list[Any]:
        try:
            details = orjson.loads(text)
        except orjson.JSONDecodeError:
            details = None
        if not isinstance(details, list):
            raise UnsendableRequestError("a reasoning block's signature is not as it came", provider=self.provider)
        return details


class _Decoder(ChatCompletionsDecoder):
    """Puts the pieces of each reasoning detail together; they are whole when the answer ends."""

    __slots__ = ("_details", "_pieces")

    def __init__(self, codec: OpenRouterCodec) -> None:
        super().__init__(codec)
        self._details: list[dict[str, Any]] = []
        self._pieces: list[str] = []  # the text of the last detail

    def response(self, payload: Any, key: str) -> list[StreamEvent]:
        events = super().response(payload, key)
        if self._details and isinstance(end := events[-1] if events else None, Finished) and end.finish_reason:
            events.insert(-1, ReasoningDelta("", self._signature()))
        return events

    def _part(self, part: dict[str, Any], events: list[StreamEvent]) -> None:
        super()._part(part, events)
        if part.get("reasoning_details"):
            for detail in self._codec.objects(part, "reasoning_details"):
                self._add(detail)

    def _add(self, detail: dict[str, Any]) -> None:
        field, last = _place(detail), self._details[-1] if self._details else {}
        if field and all(last.get(key) == detail.get(key) for key in ("type", "index")):
            last.update((key, value) for key, value in detail.items() if value is not None and key != field)
        else:
            self._join()
            self._details.append(dict(detail))
        if field and (text := self._codec.typed(detail, field, str)):
            self._pieces.append(text)

    def _join(self) -> None:
        if self._pieces and (field := _place(self._details[-1])):
            self._details[-1][field] = "".join(self._pieces)
            self._pieces.clear()

    def _signature(self) -> str:
        self._join()
        details, self._details = self._details, []
        try:
            return f"{self._codec.provider}:{orjson.dumps(details, option=orjson.OPT_SORT_KEYS).decode()}"
        except orjson.JSONEncodeError as error:
            raise self._codec.malformed("reasoning_details are nested too deep") from error


def _place(detail: dict[str, Any]) -> str | None:
    kind = detail.get("type")
    return _TEXTS.get(kind) if isinstance(kind, str) else None


def _cached(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The breakpoint goes on the last text; images and files take none."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    last = max((place for place, part in enumerate(parts) if part["type"] == "text"), default=None)
    if last is not None:
        parts[last] = {**parts[last], "cache_control": {"type": "ephemeral"}}
    return parts


def _metadata(error: dict[str, Any]) -> dict[str, Any]:
    return object_of(error.get("metadata"))
