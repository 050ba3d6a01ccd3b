"""The errors that a caller sees. `code` is part of the API; the text is for people; `path` names the bad input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .types import Attempt, TokenUsage


class DomainError(Exception):
    """Base of every error that is meant for the caller."""

    code: ClassVar[str]
    retryable: bool = False
    retry_after_ms: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UnauthenticatedError(DomainError):
    code = "UNAUTHENTICATED"


class ForbiddenError(DomainError):
    code = "FORBIDDEN"


class BadUserInputError(DomainError):
    code = "BAD_USER_INPUT"

    def __init__(self, message: str, *, path: Sequence[str | int] = ()) -> None:
        super().__init__(message)
        self.path = tuple(path)


class NotFoundError(DomainError):
    code = "NOT_FOUND"


class ConflictError(DomainError):
    code = "CONFLICT"


@dataclass(frozen=True, slots=True)
class LimitDetail:
    """Of whose calls (`limited` and `name`, as in `LimitRule`, but None for the organisation) which figure (`measure`,
    its field) is at its limit. Counts and USD as decimal text: `used` holds what is reserved for calls that run."""

    limited: str
    name: str | None
    measure: str
    limit: str
    used: str
    asked: str


class LimitError(DomainError):
    """`detail` is None where it is no limit that somebody has set."""

    retryable = True

    def __init__(self, message: str, detail: LimitDetail | None = None) -> None:
        super().__init__(message)
        self.detail = detail


class RateLimitedError(LimitError):
    code = "RATE_LIMITED"


class BudgetExceededError(LimitError):
    code = "BUDGET_EXCEEDED"


class ServiceUnavailableError(DomainError):
    code = "SERVICE_UNAVAILABLE"
    retryable = True


class QueryTooComplexError(DomainError):
    """More of `what` than an operation may have: `asked`, None where that was not counted to the end."""

    code = "QUERY_TOO_COMPLEX"

    def __init__(self, what: str, asked: int | None, limit: int, *, advice: str = "ask in several operations") -> None:
        here = f"more than {limit} {what}" if asked is None else f"{asked} {what}, and at most {limit} are allowed"
        super().__init__(f"too complex: {here}; {advice}")
        self.what = what
        self.asked = asked
        self.limit = limit


class PersistedQueryNotFoundError(DomainError):
    code = "PERSISTED_QUERY_NOT_FOUND"


class CompletionFailedError(DomainError):
    """A completion that no attempt could answer. `code` is the last attempt's, or DEADLINE_EXCEEDED. `content`: what
    was answered, where it is not what responseFormat asks for. `limit`: which had no room for another attempt."""

    code: str  # type: ignore[misc]  # one class, the code is the vendor's verdict

    def __init__(
        self,
        message: str,
        *,
        code: str,
        completion_id: str,
        attempts: Sequence[Attempt],
        usage: TokenUsage,
        provider: str | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        content: str | None = None,
        limit: LimitDetail | None = None,
    ) -> None:
        super().__init__(message)
        self.content = content
        self.limit = limit
        self.code = code
        self.completion_id = completion_id
        self.attempts = tuple(attempts)
        self.usage = usage
        self.provider = provider
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms
