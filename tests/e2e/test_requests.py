"""HTTP at `/graphql` and beside it, as browsers, proxies and probes use it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from gateway.security_headers import NOTHING

from .documents import STREAM, Told
from .processes import Server
from .test_endpoint import TYPENAME, error_of
from .test_providers import asked

MODERN = "application/graphql-response+json"
SSE = "text/event-stream"
URQL = (
    "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed"
)
ANSWER = Told(data={"__typename": "Query"})


@dataclass
class Caller:
    """Requests to the endpoint, with a token."""

    client: httpx.Client
    url: str

    def request(self, method: str, **request: Any) -> httpx.Response:
        return self.client.request(method, self.url, **request)

    def post(self, **request: Any) -> httpx.Response:
        return self.request("POST", **request)


@pytest.fixture
def caller(server: Server, token: str) -> Iterator[Caller]:
    with httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
        yield Caller(client, server.url)


# What is sent


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "APPLICATION/JSON",
        "application/json; charset=us-ascii",
        "application/json; profile=x",
    ],
)
def test_json_by_any_of_its_names_is_taken(caller: Caller, content_type: str) -> None:
    answer = caller.post(content=json.dumps(TYPENAME), headers={"content-type": content_type})
    assert answer.json() == ANSWER


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/graphql"},
        {"content-type": "text/plain; application/json"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "identity, br"},
    ],
)
def test_what_else_is_sent_is_415(caller: Caller, headers: dict[str, str]) -> None:
    """No type that a form of another site's page can send is among those taken."""
    answer = caller.post(content=json.dumps(TYPENAME).encode(), headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (415, "BAD_USER_INPUT")
    assert (answer.headers["accept"], answer.headers["accept-encoding"]) == ("application/json", "identity")


@pytest.mark.parametrize(
    "query_string",
    [
        "",
        "query",
        "query=",
        "query=%FF",
        "query={a}&query={b}",
        "query={__typename}&variables=[]",
        "query={__typename}&variables={",
        "query={__typename}&variables=" + "[" * 20_000,
        "query={__typename}&extensions=1",
        "&".join(f"a{number}=1" for number in range(17)),
        ";",
    ],
)
def test_a_query_string_that_says_nothing_clear_is_400(caller: Caller, query_string: str) -> None:
    answer = caller.client.get(f"{caller.url}?{query_string}")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "BAD_USER_INPUT")


def test_a_query_string_may_have_all_that_a_body_has(caller: Caller) -> None:
    document = "query A($n: String!) { __type(name: $n) { name } } query B { __typename }"
    parameters = {"query": document, "operationName": "A", "variables": '{"n": "Query"}', "extensions": '{"a": 1}'}
    assert caller.request("GET", params=parameters).json() == Told(data={"__type": {"name": "Query"}})


# What is answered


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/json", "application/json"),
        (MODERN, MODERN),
        (f"{MODERN}, application/json", MODERN),
        (f"application/json, {MODERN}", MODERN),
        (f"{MODERN};q=0.5, application/json", "application/json"),
        (f"{MODERN};q=0, */*", "application/json"),
        ("application/json;q=0, */*", MODERN),
        ("text/html, */*;q=0.1", "application/json"),
        (f"{SSE}, */*", "application/json"),
        (URQL, MODERN),
        ("", "application/json"),
        (", ;q=1, nonsense, application/json", "application/json"),
    ],
)
def test_the_answer_is_of_the_type_that_is_liked_best(caller: Caller, accept: str, media_type: str) -> None:
    answer = caller.post(json=TYPENAME, headers={"accept": accept})
    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.json() == ANSWER


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "application/json;q=x"])
def test_where_no_type_is_liked_it_is_406(caller: Caller, accept: str) -> None:
    answer = caller.post(json=TYPENAME, headers={"accept": accept})
    assert (answer.status_code, error_of(answer)["code"]) == (406, "BAD_USER_INPUT")


def test_a_refusal_is_of_the_type_that_a_client_reads(caller: Caller) -> None:
    refused = caller.post(content=b"{", headers={"content-type": "application/json", "accept": MODERN})
    assert (refused.status_code, refused.headers["content-type"]) == (400, MODERN)


@pytest.mark.parametrize("accept", [SSE, URQL, f"application/json;q=0.9, {SSE}"])
def test_a_subscription_streams_to_who_takes_streams(caller: Caller, accept: str) -> None:
    body = {"query": STREAM, "variables": {"input": asked("openai", "Hi. [[tokens=2]]")}}
    answer = caller.post(json=body, headers={"accept": accept})
    assert answer.headers["content-type"] == SSE
    assert answer.text.endswith("event: complete\ndata:\n\n")


def test_who_takes_none_is_told_so(caller: Caller) -> None:
    body = {"query": STREAM, "variables": {"input": asked("openai", "Hi.")}}
    answer = caller.post(json=body, headers={"accept": MODERN})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "BAD_USER_INPUT")


# Methods and paths


def test_head_is_get_without_the_body(caller: Caller) -> None:
    got, headed = (caller.request(method, params=TYPENAME) for method in ("GET", "HEAD"))
    assert (headed.status_code, headed.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert headed.headers[name] == got.headers[name]


def test_options_tells_the_methods_without_a_token(server: Server) -> None:
    answer = httpx.options(server.url)
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, POST, OPTIONS", b"")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"])
def test_no_other_method_gets_as_far_as_the_token(server: Server, method: str) -> None:
    answer = httpx.request(method, server.url)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")
    assert error_of(answer)["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("path", ["/", "/graphql/", "/graphql/x", "/GRAPHQL", "/..%2fgraphql", "/docs"])
def test_there_is_nothing_at_other_paths(server: Server, path: str) -> None:
    origin = server.url.removesuffix("/graphql")
    assert httpx.get(f"{origin}{path}").status_code == 404
    assert httpx.post(f"{origin}{path}", json=TYPENAME).status_code in (404, 405)


def test_a_probe_answers_one_method(server: Server) -> None:
    answer = httpx.post(server.url.replace("/graphql", "/healthcheck"))
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


# What browsers are told


def test_every_answer_is_safe_for_a_browser(server: Server, caller: Caller) -> None:
    origin = server.url.removesuffix("/graphql")
    answers = [
        caller.post(json=TYPENAME),
        caller.post(content=b"{"),
        httpx.post(server.url),
        httpx.options(server.url),
        httpx.get(f"{origin}/healthcheck"),
        httpx.get(f"{origin}/nothing"),
        httpx.get(f"{origin}/files"),
        httpx.get(f"{origin}/usage.csv"),
    ]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["content-security-policy"] == NOTHING.decode()
        assert answer.headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in answer.headers, "nobody says that there is TLS"
        assert "server" not in answer.headers


def test_the_page_has_a_policy_of_its_own(server: Server) -> None:
    page = httpx.get(server.url, headers={"accept": "text/html"})
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-cache"


def test_a_stranger_who_says_so_is_not_believed(server: Server) -> None:
    answer = httpx.post(server.url, headers={"x-forwarded-proto": "https"})
    assert "strict-transport-security" not in answer.headers


# What another site's page can do


@pytest.mark.parametrize(
    "request_of_a_page",
    [
        {"method": "POST", "headers": {"content-type": "text/plain"}, "content": json.dumps(TYPENAME)},
        {"method": "POST", "data": {"query": "{ __typename }"}},
        {"method": "POST", "files": {"operations": b"{}"}},
        {"method": "GET", "params": TYPENAME},
    ],
)
def test_another_site_s_page_gets_nothing_done(server: Server, request_of_a_page: dict[str, Any]) -> None:
    """It can't set the header with the token, and there is nothing else, such as a cookie, that would do."""
    headers = {"origin": "https://evil.example", "cookie": "token=x", **request_of_a_page.pop("headers", {})}
    answer = httpx.request(url=server.url, headers=headers, **request_of_a_page)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
