"""What an error of the chat-completions dialect means: by the vendor's own code first, then by the status.

Source: https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .errors import (
    ProviderAuthError,
    ProviderContentFilteredError,
    ProviderContextLengthError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
)


class Verdict(NamedTuple):
    """What an error means. `retryable` is None where the class's own default holds."""

    kind: type[ProviderError]
    retryable: bool | None = None


UNPAID: Final = Verdict(ProviderRateLimitedError, retryable=False)  # waiting doesn't help: someone has to pay

# Error codes (text) and statuses (numbers) that say more than the status's general meaning.
ERRORS: Final[Mapping[str | int, Verdict]] = {
    402: UNPAID,
    "insufficient_quota": UNPAID,
    "invalid_api_key": Verdict(ProviderAuthError),
    "context_length_exceeded": Verdict(ProviderContextLengthError),
    "content_filter": Verdict(ProviderContentFilteredError),
    "content_policy_violation": Verdict(ProviderContentFilteredError),
}

# Codes that are vague beside a status, and all there is to go by inside a 200.
INSIDE_200: Final[Mapping[str, Verdict]] = {
    "invalid_request_error": Verdict(ProviderInvalidRequestError),
    "authentication_error": Verdict(ProviderAuthError),
    "rate_limit_exceeded": Verdict(ProviderRateLimitedError),
    "rate_limit_error": Verdict(ProviderRateLimitedError),
    "timeout": Verdict(ProviderTimeoutError),
}


def text_of(error: dict[str, Any]) -> str:
    """The vendor's words: a text, or a FastAPI list of invalid fields, which may stand in the place of the text."""
    message = error.get("message")
    if isinstance(message, str):
        return message
    detail = object_of(message).get("detail") or error.get("detail")
    if isinstance(detail, str):
        return detail
    found = [object_of(item) for item in detail] if isinstance(detail, list) else []
    return "; ".join(f"{_where(item.get('loc'))}{item.get('msg')}" for item in found if item.get("msg"))


def _where(location: Any) -> str:
    return ".".join(map(str, location)) + ": " if isinstance(location, list) else ""


def object_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
