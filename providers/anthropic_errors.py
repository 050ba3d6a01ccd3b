"""Errors of Anthropic's Messages API, and strict reading of its answers.

Source: https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    error_class_for_status,
)
from .figures import is_count

PROVIDER: Final = "anthropic"

_MAX_VENDOR_TEXT = 500

_ERRORS: Final[Mapping[str, type[ProviderError]]] = {
    "authentication_error": ProviderAuthError,
    "permission_error": ProviderAuthError,
    "billing_error": ProviderAuthError,
    "invalid_request_error": ProviderInvalidRequestError,
    "not_found_error": ProviderInvalidRequestError,
    "request_too_large": ProviderInvalidRequestError,  # too many bytes, which says nothing of the context window
    "rate_limit_error": ProviderRateLimitedError,
    "api_error": ProviderUnavailableError,
    "overloaded_error": ProviderUnavailableError,
    "timeout_error": ProviderTimeoutError,
}

_T = TypeVar("_T")


def count(figures: dict[str, Any], key: str, default: int | None = None) -> int:
    value = figures.get(key)
    if value is None:
        value = default
    if not is_count(value):
        raise malformed(f"{key} is not a count")
    return value


def typed(source: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    return None if source.get(key) is None else required(source, key, kind)


def required(source: dict[str, Any], key: str, kind: type[_T]) -> _T:
    value = source.get(key)
    if isinstance(value, kind):
        return value
    raise malformed(f"{key} is missing or of the wrong type")


def error(payload: Any, *, status: int | None, retry_after: float | None) -> ProviderError:
    """Reads what it can: an odd error is never a reason to fail. `status` is the HTTP answer's, None inside a 200."""
    body = payload.get("error") if isinstance(payload, dict) else None
    told = body if isinstance(body, dict) else {}
    code, text = told.get("type"), told.get("message")
    if isinstance(code, str) and code in _ERRORS:
        kind = _ERRORS[code]
    else:
        kind = ProviderUnavailableError if status is None else error_class_for_status(status)
    if kind is ProviderAuthError:
        message = "anthropic refused the credentials, or the account behind them"  # its own words may name the key
    elif isinstance(text, str) and text:
        message = text[:_MAX_VENDOR_TEXT]
    else:
        message = "anthropic answered with an error" + (f", status {status}" if status else "")
    return kind(
        message,
        provider=PROVIDER,
        status=status,
        vendor_code=code if isinstance(code, str) else None,
        retry_after=retry_after,
    )


def malformed(what: str) -> ProviderBadResponseError:
    return ProviderBadResponseError(f"anthropic sent a malformed answer: {what}", provider=PROVIDER)
