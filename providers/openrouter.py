"""OpenRouter's chat completions.

Sources: https://openrouter.ai/docs/api-reference/chat-completion,
https://openrouter.ai/docs/use-cases/usage-accounting (usage and cost in every answer),
https://openrouter.ai/docs/api/reference/errors-and-debugging (errors, also inside a 200),
https://openrouter.ai/docs/client-sdks/python/components/apierrortype (`error_type`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, ClassVar

from .errors import (
    ProviderAuthError,
    ProviderContentFilteredError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from .figures import is_cost
from .openai_dialect import ChatCompletionsCodec
from .openai_errors import ERRORS, UNPAID, Verdict
from .types import Usage

_FILTERED = Verdict(ProviderContentFilteredError)
_BUDGETS = ("openrouter_credits", "openrouter_key_limit", "openrouter_guardrail_budget", "openrouter_workspace_budget")
_LIMITS = {
    **dict.fromkeys(_BUDGETS, UNPAID),
    "openrouter_in_flight_budget": Verdict(ProviderRateLimitedError),  # a 402 that passes as calls end
}


class OpenRouterCodec(ChatCompletionsCodec):
    """Under https://openrouter.ai/api/v1. `cost` is in credits, of which one is one US dollar."""

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
        """The cost's shortest decimal form is what the vendor wrote."""
        cost = counts.get("cost")
        if cost is None:
            return super().counted(counts)
        if not is_cost(cost):
            raise self.malformed("cost is not an amount")
        return replace(super().counted(counts), cost=Decimal(str(cost)))


def _metadata(error: dict[str, Any]) -> dict[str, Any]:
    metadata = error.get("metadata")
    return metadata if isinstance(metadata, dict) else {}
