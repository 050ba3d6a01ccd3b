"""Errors as the caller sees them: coded, with the request id, and nothing of ours inside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import structlog
from graphql import GraphQLError

from resolvers.errors import (
    BadUserInputError,
    CompletionFailedError,
    DomainError,
    LimitDetail,
    LimitError,
    QueryTooComplexError,
)
from resolvers.types import Attempt

UNEXPECTED = "Something went wrong on our side; the request id finds it in the log."

MAX_ERRORS = 10
"""Of one answer: more help nobody, and cost more to write than the query did."""

MAX_MESSAGE = 500
"""In characters, of what names the query's own parts."""

_VALUE = re.compile(
    r"(cannot represent [\w -]*value): .*|[,;]? [Ff]ound: .*|(?<=String) ['\"].*|(?<=^Value) .*(?= does not exist in)",
    re.DOTALL,
)
"""Where graphql-core goes on to show what it was given: a provider key may be in it."""

log = structlog.get_logger("graph")


def formatted(errors: Sequence[GraphQLError], request_id: str) -> list[dict[str, Any]]:
    """The `errors` of an answer, the first MAX_ERRORS. What is neither a DomainError nor the query's own fault is
    INTERNAL; its text is only logged. None repeats a value of the query's."""
    return [_format(error, request_id) for error in errors[:MAX_ERRORS]]


def refusal(error: DomainError, request_id: str) -> dict[str, Any]:
    """One of the `errors` of an operation that never ran."""
    return {"message": error.message, "extensions": extensions_of(error, request_id)}


def internal(request_id: str) -> dict[str, Any]:
    """A defect of ours: told by its code and request id alone."""
    return {"message": UNEXPECTED, "extensions": {"code": "INTERNAL", "requestId": request_id}}


def extensions_of(error: DomainError, request_id: str) -> dict[str, Any]:
    """`extensions` of one error: its code, the request id, and what else applies."""
    extensions: dict[str, Any] = {"code": error.code, "requestId": request_id}
    if isinstance(error, BadUserInputError):
        if error.path:
            extensions["path"] = list(error.path)
        return extensions
    extensions["retryable"] = error.retryable
    if error.retry_after_ms is not None:
        extensions["retryAfterMs"] = error.retry_after_ms
    if (limit := limit_of(error)) is not None:
        extensions["limit"] = asdict(limit)
    if isinstance(error, QueryTooComplexError):
        extensions["limit"] = {"measure": error.what, "asked": error.asked, "limit": error.limit}
    if isinstance(error, CompletionFailedError):
        extensions["completionId"] = error.completion_id
        extensions["attempts"] = [_attempt(attempt) for attempt in error.attempts]
        if error.provider is not None:
            extensions["provider"] = error.provider
        if error.content is not None:
            extensions["content"] = error.content
    return extensions


def limit_of(error: DomainError) -> LimitDetail | None:
    """The limit that had no room, where that is what it tells of."""
    if isinstance(error, CompletionFailedError):
        return error.limit
    return error.detail if isinstance(error, LimitError) else None


def code_of(error: GraphQLError) -> str:
    """Its `extensions.code` as the caller sees it."""
    original = _original(error)
    if isinstance(original, DomainError):
        return original.code
    return "BAD_USER_INPUT" if original is None else "INTERNAL"


def without_values(message: str) -> str:
    """graphql-core's text, as far as it goes before it shows what it was given."""
    return _VALUE.sub(r"\1", message)


def _format(error: GraphQLError, request_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"message": error.message}
    if error.locations:
        answer["locations"] = [location.formatted for location in error.locations]
    if error.path:
        answer["path"] = error.path
    original = _original(error)
    if isinstance(original, DomainError):
        answer["message"] = original.message
        answer["extensions"] = extensions_of(original, request_id)
    elif original is None:
        answer["message"] = without_values(_shortened(error.message))
        answer["extensions"] = {"code": "BAD_USER_INPUT", "requestId": request_id}
    else:
        log.error("unexpected error", request_id=request_id, path=error.path, exc_info=original)
        answer.update(internal(request_id))
    return answer


def _shortened(message: str) -> str:
    """A name may be as long as a body. Before `_VALUE` looks at it: that takes time by the square of its length."""
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"


def _original(error: GraphQLError) -> BaseException | None:
    """The exception beneath graphql-core's wrapping; None where the query itself is at fault."""
    original: BaseException | None = error.original_error
    while isinstance(original, GraphQLError):
        original = original.original_error
    return original


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "provider": attempt.provider,
        "model": attempt.model,
        "outcome": attempt.outcome.name,
        "errorCode": attempt.error_code,
        "latencyMs": attempt.latency_ms,
    }
