"""Errors of the Gemini API, and strict reading of its answers.

Sources: https://ai.google.dev/gemini-api/docs/troubleshooting,
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto (their details).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from .errors import (
    ProviderAuthError,
    ProviderBadResponseError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsendableRequestError,
    error_class_for_status,
)
from .figures import is_count

PROVIDER: Final = "google"
_MAX_VENDOR_TEXT = 500

_BAD_KEY = "API_KEY_INVALID"
_ERRORS: Final[Mapping[str, type[ProviderError]]] = {
    _BAD_KEY: ProviderAuthError,  # a reason in the details, not a status: it comes as INVALID_ARGUMENT
    "UNAUTHENTICATED": ProviderAuthError,
    "PERMISSION_DENIED": ProviderAuthError,
    "INVALID_ARGUMENT": ProviderInvalidRequestError,
    "FAILED_PRECONDITION": ProviderInvalidRequestError,
    "NOT_FOUND": ProviderInvalidRequestError,
    "OUT_OF_RANGE": ProviderInvalidRequestError,
    "RESOURCE_EXHAUSTED": ProviderRateLimitedError,
    "INTERNAL": ProviderUnavailableError,
    "UNAVAILABLE": ProviderUnavailableError,
    "DEADLINE_EXCEEDED": ProviderTimeoutError,
}

_RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s")

_T = TypeVar("_T")


def count(counts: dict[str, Any], key: str) -> int:
    value = counts.get(key)
    if value is None:
        return 0
    if not is_count(value):
        raise malformed(f"{key} is not a count")
    return value


def typed(source: dict[str, Any], key: str, kind: type[_T]) -> _T | None:
    value = source.get(key)
    if value is None or isinstance(value, kind):
        return value
    raise malformed(f"{key} is of the wrong type")


def objects(source: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The list under `key`, which may be missing."""
    found = typed(source, key, list) or []
    if not all(isinstance(each, dict) for each in found):
        raise malformed(f"one of {key} is not an object")
    return found


def error(payload: Any, *, status: int | None, retry_after: float | None) -> ProviderError:
    """Reads what it can: an odd error is never a reason to fail. `status` is the HTTP answer's, None inside a 200."""
    told = _object(_object(payload).get("error"))
    name, text, number = told.get("status"), told.get("message"), told.get("code")
    listed = told.get("details")
    details = [_object(detail) for detail in listed] if isinstance(listed, list) else []
    if any(detail.get("reason") == _BAD_KEY for detail in details):
        name = _BAD_KEY
    if isinstance(name, str) and name in _ERRORS:
        kind = _ERRORS[name]
    else:
        number = number if status is None else status
        kind = error_class_for_status(number if isinstance(number, int) else 0)
    if kind is ProviderAuthError:
        message = "google refused the credentials"  # the vendor's words may name the key or its project
    elif isinstance(text, str) and text:
        message = text[:_MAX_VENDOR_TEXT]
    else:
        message = "google answered with an error" + (f", status {status}" if status else "")
    return kind(
        message,
        provider=PROVIDER,
        status=status,
        vendor_code=name if isinstance(name, str) else None,
        retry_after=_retry_delay(details) if retry_after is None else retry_after,
    )


def _retry_delay(details: Iterable[dict[str, Any]]) -> float | None:
    """Seconds of google.rpc.RetryInfo, a Duration in JSON: "36s", "0.5s"."""
    for detail in details:
        delay = detail.get("retryDelay")
        if detail.get("@type") == _RETRY_INFO and isinstance(delay, str) and (match := _DURATION.fullmatch(delay)):
            return float(match[1])
    return None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def malformed(what: str) -> ProviderBadResponseError:
    return ProviderBadResponseError(f"google sent a malformed answer: {what}", provider=PROVIDER)


def unsendable(what: str) -> UnsendableRequestError:
    return UnsendableRequestError(what, provider=PROVIDER)
