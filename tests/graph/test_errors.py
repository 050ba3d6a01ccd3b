"""Errors as callers see them: each coded, none telling anything of ours."""

from __future__ import annotations

from decimal import Decimal

import pytest
from graphql import GraphQLError

from graph.errors import UNEXPECTED, formatted
from persistence.records import CostSource, Outcome
from resolvers.errors import (
    BadUserInputError,
    CompletionFailedError,
    ConflictError,
    DomainError,
    ForbiddenError,
    NotFoundError,
    ServiceUnavailableError,
    UnauthenticatedError,
)
from resolvers.types import Attempt, TokenUsage

NOTHING = TokenUsage(0, 0, 0, 0, 0, Decimal(0), CostSource.NOT_BILLED, estimated=False)


def raised(error: Exception) -> dict[str, object]:
    (answer,) = formatted([GraphQLError(str(error), path=["complete"], original_error=error)], "request-1")
    return answer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnauthenticatedError("no token"), "UNAUTHENTICATED"),
        (ForbiddenError("no scope"), "FORBIDDEN"),
        (NotFoundError("no such completion"), "NOT_FOUND"),
        (ConflictError("used"), "CONFLICT"),
        (ServiceUnavailableError("the ledger"), "SERVICE_UNAVAILABLE"),
    ],
)
def test_a_domain_error_keeps_its_text_and_code(error: DomainError, code: str) -> None:
    answer = raised(error)
    assert answer["message"] == error.message
    assert answer["path"] == ["complete"]
    assert answer["extensions"] == {"code": code, "requestId": "request-1", "retryable": error.retryable}


def test_bad_input_names_its_place() -> None:
    answer = raised(BadUserInputError("too hot", path=("input", "temperature")))
    assert answer["extensions"] == {
        "code": "BAD_USER_INPUT",
        "requestId": "request-1",
        "path": ["input", "temperature"],
    }


def test_a_failed_completion_tells_its_story() -> None:
    error = CompletionFailedError(
        "overloaded",
        code="PROVIDER_UNAVAILABLE",
        completion_id="cmp_1",
        attempts=[Attempt(1, "openai", "gpt-4o-mini", Outcome.FAILED, "PROVIDER_UNAVAILABLE", 12, None, NOTHING, None)],
        usage=NOTHING,
        provider="openai",
        retryable=True,
        retry_after_ms=1500,
    )
    assert raised(error)["extensions"] == {
        "code": "PROVIDER_UNAVAILABLE",
        "requestId": "request-1",
        "retryable": True,
        "retryAfterMs": 1500,
        "completionId": "cmp_1",
        "provider": "openai",
        "attempts": [
            {
                "provider": "openai",
                "model": "gpt-4o-mini",
                "outcome": "FAILED",
                "errorCode": "PROVIDER_UNAVAILABLE",
                "latencyMs": 12,
            }
        ],
    }


@pytest.mark.parametrize("error", [RuntimeError("password=hunter2"), KeyError("secret"), ValueError("/srv/app.py")])
def test_anything_else_is_internal_and_says_nothing(error: Exception) -> None:
    answer = raised(error)
    assert answer["message"] == UNEXPECTED
    assert answer["extensions"] == {"code": "INTERNAL", "requestId": "request-1"}


def test_an_error_wrapped_by_graphql_is_masked_all_the_same() -> None:
    inner = GraphQLError("inner", original_error=RuntimeError("password=hunter2"))
    assert "hunter2" not in str(formatted([GraphQLError("outer", original_error=inner)], "request-1"))


def test_the_querys_own_fault_is_told() -> None:
    (answer,) = formatted([GraphQLError("Cannot query field 'x'")], "request-1")
    assert answer["message"] == "Cannot query field 'x'"
    assert answer["extensions"] == {"code": "BAD_USER_INPUT", "requestId": "request-1"}
