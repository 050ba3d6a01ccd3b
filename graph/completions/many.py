"""Several completions in parallel: each has its own outcome beside the others'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import strawberry
import structlog
from strawberry.scalars import JSON

from graph.context import Context
from graph.errors import UNEXPECTED, limit_of
from graph.limits import LimitReached
from resolvers import fan_out
from resolvers.booking import total_usage
from resolvers.errors import BadUserInputError, CompletionFailedError, DomainError

from .inputs import CompleteInput, resolved
from .types import Attempt, Completion, Usage

log = structlog.get_logger("graph")


class _DefectError(DomainError):
    """What is told of a defect of ours."""

    code = "INTERNAL"


@strawberry.type(description="No whole answer to one of the inputs. What was produced is booked.")
class CompletionFailure:
    index: int = strawberry.field(description="Which of the inputs, from 0.")
    code: str = strawberry.field(description="The error's code, as in `extensions.code`.")
    message: str = strawberry.field(description="For people.")
    path: JSON | None = strawberry.field(
        description='For BAD_USER_INPUT: where in the arguments, such as ["inputs", 3, "model"].'
    )
    provider: str | None = strawberry.field(
        description="The provider that failed last, where one did. Beside Completion.provider it needs an alias."
    )
    retryable: bool = strawberry.field(description="True where the same input may succeed later.")
    retry_after_ms: int | None = strawberry.field(
        description="How long to wait, in milliseconds: what the vendor asked for, or until a limit has room."
    )
    limit: LimitReached | None = strawberry.field(
        description="For RATE_LIMITED and BUDGET_EXCEEDED of a limit that is set: which, and how it stood."
    )
    completion_id: strawberry.ID | None = strawberry.field(
        description="Its id; the ledger has it where there are attempts. Null where it got none."
    )
    attempts: list[Attempt] = strawberry.field(description="Every call to a vendor, in order.")
    usage: Usage = strawberry.field(description="What these attempts cost all the same.")
    content: str | None = strawberry.field(
        description="The whole answer, where one came and was not what responseFormat asks for. Beside "
        "Completion.content it needs no alias."
    )


CompletionOutcome = Annotated[
    Completion | CompletionFailure,
    strawberry.union("CompletionOutcome", description="How one of several completions ended."),
]


async def complete_many(context: Context, inputs: Sequence[CompleteInput]) -> list[Completion | CompletionFailure]:
    fan_out.check_count(inputs)
    asked = [await _asked(each, context) for each in inputs]
    outcomes = await fan_out.complete_many(context.services, context.principal, asked)
    return [_told(index, outcome, context.request_id) for index, outcome in enumerate(outcomes)]


async def _asked(given: CompleteInput, context: Context) -> fan_out.Asked:
    try:
        return given.command() if given.config is None else await resolved(given, given.config, context)
    except DomainError as error:
        return error


def _told(index: int, outcome: fan_out.Outcome, request_id: str) -> Completion | CompletionFailure:
    if not isinstance(outcome, Exception):
        return Completion.of(outcome)
    if not isinstance(outcome, DomainError):
        log.error("unexpected error", request_id=request_id, path=["completeMany", index], exc_info=outcome)
        return _failure(index, _DefectError(UNEXPECTED))
    if isinstance(outcome, CompletionFailedError):
        return CompletionFailure(
            index=index,
            code=outcome.code,
            message=outcome.message,
            path=JSON(["inputs", index]) if outcome.code == BadUserInputError.code else None,
            provider=outcome.provider,
            retryable=outcome.retryable,
            retry_after_ms=outcome.retry_after_ms,
            limit=_limit(outcome),
            completion_id=strawberry.ID(outcome.completion_id),
            attempts=[Attempt.of(attempt) for attempt in outcome.attempts],
            usage=Usage.of(outcome.usage),
            content=outcome.content,
        )
    return _failure(index, outcome)


def _failure(index: int, error: DomainError) -> CompletionFailure:
    """One that has no attempts to tell of."""
    return CompletionFailure(
        index=index,
        code=error.code,
        message=error.message,
        path=JSON(list(error.path)) if isinstance(error, BadUserInputError) else None,
        provider=None,
        retryable=error.retryable,
        retry_after_ms=error.retry_after_ms,
        limit=_limit(error),
        completion_id=None,
        attempts=[],
        content=None,
        usage=Usage.of(total_usage(())),
    )


def _limit(error: DomainError) -> LimitReached | None:
    limit = limit_of(error)
    return None if limit is None else LimitReached.of(limit)
