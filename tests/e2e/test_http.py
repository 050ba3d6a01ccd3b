"""GraphQL over HTTP to the letter, and what the log keeps of it."""

from __future__ import annotations

import httpx
import pytest

from graph.errors import MAX_ERRORS

from .processes import Server
from .test_endpoint import TYPENAME, error_of, send

MUTATION = 'mutation { cancelCompletion(by: {id: "x"}) { cancelled } }'


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/graphql-response+json"])
def test_a_mutation_is_not_sent_by_get(server: Server, token: str, accept: str) -> None:
    headers = {"authorization": f"Bearer {token}", "accept": accept}
    refused = httpx.get(server.url, params={"query": MUTATION}, headers=headers)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")
    assert error_of(refused)["code"] == "BAD_USER_INPUT"
    named = {"query": f"query A {{ __typename }} {MUTATION.replace('mutation', 'mutation B')}", "operationName": "A"}
    assert httpx.get(server.url, params=named, headers=headers).json()["data"] == {"__typename": "Query"}


@pytest.mark.parametrize("extensions", [0, 1, False, True, "", "x", []])
def test_extensions_are_an_object(server: Server, token: str, extensions: object) -> None:
    assert send(server, token, json={**TYPENAME, "extensions": extensions}).status_code == 400


@pytest.mark.parametrize("extensions", [None, {}, {"a": 1}])
def test_extensions_of_any_kind_are_ignored(server: Server, token: str, extensions: object) -> None:
    answer = send(server, token, json={**TYPENAME, "extensions": extensions})
    assert answer.json()["data"] == {"__typename": "Query"}


def test_a_query_of_many_mistakes_is_told_a_few(server: Server, token: str) -> None:
    query = "{" + " ".join(f"nothing{number}" for number in range(20)) + "}"
    assert len(send(server, token, json={"query": query}).json()["errors"]) == MAX_ERRORS


def test_each_request_leaves_one_line_in_the_log(server: Server, token: str) -> None:
    for request_id in ("log-me-1", "log-me-2"):  # once the second is answered, the first is logged
        send(server, token, json=TYPENAME, headers={"x-request-id": request_id})
    (line,) = [line for line in server.log().splitlines() if "request_id=log-me-1" in line]
    for part in ("method=POST", "status=200", "organisation=", "principal=tester", "duration_ms="):
        assert part in line
    assert token not in server.log()
