"""Errors as callers see them: each coded, none telling anything of ours."""

from __future__ import annotations

from decimal import Decimal

import pytest
from graphql import GraphQLError

from graph.errors import UNEXPECTED, formatted
from graph.schema import build_schema
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


SET = "mutation ($input: SetProviderKeyInput!) { setProviderKey(input: $input) { hint } }"


@pytest.mark.parametrize(
    ("query", "given", "said"),
    [
        (SET, {"key": "sk-x"}, "to include required field 'provider'"),
        (SET, {"provider": "openai", "key": "sk-x", "note": ""}, "not to include unknown field 'note'"),
        (SET, {"provider": "openai", "key": "sk-x", "keys": ""}, "Did you mean 'key'?"),
        (SET, {"provider": "openai", "key": ["sk-x"]}, "at .key: String cannot represent a non string value"),
        (SET, "sk-x", "to be an object"),
        ('{ node(id: ["sk-x"]) { id } }', None, "ID cannot represent a non-string and non-integer value"),
        ('{ node(id "sk-x") { id } }', None, "found String"),
        ('{ node "sk-x" { id } }', None, "String"),
        ('{ node """sk-x" { id } """ }', None, "BlockString"),
    ],
)
def test_a_mistaken_request_s_values_are_not_repeated(query: str, given: object, said: str) -> None:
    """There may be a provider key among them."""
    result = build_schema().execute_sync(query, None if given is None else {"input": given})
    assert result.errors
    assert "sk-x" in str(result.errors), "or there is nothing to leave out"
    messages = [error["message"] for error in formatted(result.errors, "request-1")]
    assert "sk-x" not in str(messages)
    assert any(said in message for message in messages), messages
