"""The endpoint's manners: tokens, malformed requests, masks, request ids, and sockets with several operations."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import httpx
import pytest

from resolvers.principal import Scope

from .documents import COMPLETE, RECORD, RECORDS, STREAM, USAGE
from .processes import Server, post
from .test_providers import asked

TYPENAME = {"query": "{ __typename }"}


def send(server: Server, token: str | None, **request: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.post(server.url, headers={**headers, **request.pop("headers", {})}, timeout=30, **request)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    (error,) = answer.json()["errors"]
    assert error["extensions"]["requestId"] == answer.headers["x-request-id"]
    extensions: dict[str, Any] = error["extensions"]
    return extensions


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"null", "application/json", 400),
        (b'"x"', "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"query": 1}', "application/json", 400),
        (b'{"query": "{ __typename }", "variables": []}', "application/json", 400),
        (b'{"query": "{ __typename }", "operationName": 7}', "application/json", 400),
        (b'{"query": "\xff"}', "application/json", 400),
        (b'{"query":' + b"[" * 100_000, "application/json", 400),
        (b'{"query": "{ __typename }"}', "text/plain", 415),
        (b'{"query": "{ __typename }"}', "application/x-www-form-urlencoded", 415),
        (b" " * (4 * 1024 * 1024 + 1), "application/json", 413),
    ],
)
def test_a_malformed_body_is_the_callers_fault(
    server: Server, token: str, body: bytes, content_type: str, status: int
) -> None:
    answer = send(server, token, content=body, headers={"content-type": content_type})
    assert answer.status_code == status
    assert error_of(answer)["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer x.y.z", "Basic abc", "Bearer " + "a" * 10_000])
def test_without_a_good_token_nothing_is_answered(server: Server, header: str | None) -> None:
    answer = send(server, None, json=TYPENAME, headers={"authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert error_of(answer)["code"] == "UNAUTHENTICATED"


def test_an_expired_token_is_refused(server: Server, organisation: str) -> None:
    answer = send(server, server.token(organisation, lifetime_s=-1), json=TYPENAME)
    assert (answer.status_code, error_of(answer)["code"]) == (401, "UNAUTHENTICATED")


def test_request_ids_are_echoed_or_made(server: Server, token: str) -> None:
    given = send(server, token, json=TYPENAME, headers={"x-request-id": "my-id.7"})
    assert given.headers["x-request-id"] == "my-id.7"
    made = send(server, token, json=TYPENAME, headers={"x-request-id": "no good!"})
    assert len(made.headers["x-request-id"]) == 32


def test_a_bad_query_is_coded_and_a_bad_variable_too(server: Server, token: str) -> None:
    assert error_of(send(server, token, json={"query": "{ nothing }"}))["code"] == "BAD_USER_INPUT"
    assert error_of(send(server, token, json={"query": "{"}))["code"] == "BAD_USER_INPUT"
    wrong = {"query": COMPLETE, "variables": {"input": {"model": 1}}}
    assert {error["extensions"]["code"] for error in send(server, token, json=wrong).json()["errors"]} == {
        "BAD_USER_INPUT"
    }


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"model": "gpt-4o"}, ["input", "model"]),
        ({"model": "nobody/gpt-4o"}, ["input", "model"]),
        ({"messages": []}, ["input", "messages"]),
        ({"temperature": 3.0}, ["input", "temperature"]),
        ({"timeoutMs": 0}, ["input", "timeoutMs"]),
        ({"fallbacks": [{"model": "x"}]}, ["input", "fallbacks", 0, "model"]),
        ({"providerOptions": {"openai": 1}}, ["input", "providerOptions"]),
    ],
)
def test_bad_input_is_named(server: Server, token: str, change: dict[str, Any], path: list[str | int]) -> None:
    answer = send(server, token, json={"query": COMPLETE, "variables": {"input": {**asked("openai", "Hi."), **change}}})
    extensions = error_of(answer)
    assert (extensions["code"], extensions["path"]) == ("BAD_USER_INPUT", path)


def test_what_a_vendor_can_not_do_is_refused_before_a_byte_is_sent(server: Server, token: str) -> None:
    extensions = error_of(
        send(server, token, json={"query": COMPLETE, "variables": {"input": asked("anthropic", "Hi.", seed=7)}})
    )
    assert extensions["code"] == "BAD_USER_INPUT"
    assert extensions["attempts"] == []
    assert post(server, token, RECORDS)["data"]["completions"]["nodes"] == []


def test_queries_by_get_and_no_mutations(server: Server, token: str) -> None:
    headers = {"authorization": f"Bearer {token}"}
    got = httpx.get(server.url, params={"query": "query A { __typename }", "operationName": "A"}, headers=headers)
    assert got.json()["data"] == {"__typename": "Query"}
    mutation = 'mutation { cancelCompletion(by: { id: "x" }) { cancelled } }'
    assert error_of(httpx.get(server.url, params={"query": mutation}, headers=headers))["code"] == "BAD_USER_INPUT"


def test_another_method_is_told_which_there_are(server: Server, token: str) -> None:
    answer = httpx.put(server.url, json=TYPENAME, headers={"authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")


def test_the_newer_media_type_has_its_status(server: Server, token: str) -> None:
    accept = {"accept": "application/graphql-response+json"}
    assert send(server, token, json={"query": "{ nothing }"}, headers=accept).status_code == 400
    fine = send(server, token, json=TYPENAME, headers=accept)
    assert (fine.status_code, fine.headers["content-type"]) == (200, "application/graphql-response+json")


def test_graphiql_is_shown_to_a_browser(server: Server) -> None:
    page = httpx.get(server.url, headers={"accept": "text/html"})
    assert page.status_code == 200
    assert "graphiql" in page.text.lower()


def test_probes(server: Server) -> None:
    origin = server.url.removesuffix("/graphql")
    assert httpx.get(f"{origin}/healthcheck").status_code == 200
    assert httpx.get(f"{origin}/readyz").text == "ready\n"


def test_another_organisation_sees_nothing(server: Server, token: str, organisation: str) -> None:
    done = post(server, token, COMPLETE, {"input": asked("openai", "Hi.", idempotencyKey="k")})["data"]["complete"]
    stranger = server.token(f"{organisation}-other")
    for by in ({"id": done["id"]}, {"idempotencyKey": "k"}):
        answer = post(server, stranger, RECORD, {"by": by})
        assert answer["data"] == {"completion": None}
        assert answer["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    assert post(server, stranger, RECORDS)["data"]["completions"]["nodes"] == []


def test_records_and_usage_read_the_ledger_back(server: Server, token: str) -> None:
    labels = [{"name": "team", "value": "search"}]
    for index in range(3):
        post(
            server, token, COMPLETE, {"input": asked("openai", "Hi. [[tokens=4]]", labels=labels, endUser=f"u{index}")}
        )
    first = post(server, token, RECORDS, {"first": 2})["data"]["completions"]
    assert len(first["nodes"]) == 2
    rest = post(server, token, RECORDS, {"first": 2, "after": first["pageInfo"]["endCursor"]})["data"]["completions"]
    assert len(rest["nodes"]) == 1
    assert not rest["pageInfo"]["hasNextPage"]
    one = post(server, token, RECORDS, {"filter": {"endUser": "u1", "label": labels[0]}})["data"]["completions"][
        "nodes"
    ]
    record = post(server, token, RECORD, {"by": {"id": one[0]["id"]}})["data"]["completion"]
    assert (record["endUser"], record["labels"], record["principal"]) == ("u1", labels, "tester")
    span = {"since": "2020-01-01T00:00:00Z", "until": "2100-01-01T00:00:00+02:00"}
    totals = post(server, token, USAGE, {"input": span})["data"]["usage"]["totals"]
    assert (totals["completions"], totals["attempts"], totals["outputTokens"]) == (3, 3, 12)
    assert float(totals["cost"]) > 0


def test_a_time_without_offset_is_refused(server: Server, token: str) -> None:
    span = {"since": "2020-01-01T00:00:00", "until": "2100-01-01T00:00:00Z"}
    assert post(server, token, USAGE, {"input": span})["errors"][0]["extensions"]["path"] == ["input", "since"]


async def test_one_bad_operation_harms_no_other_on_its_socket(server: Server, token: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"]) as socket,
    ):
        await socket.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        assert (await socket.receive_json())["type"] == "connection_ack"
        good = {"query": STREAM, "variables": {"input": asked("openai", "[[tokens=20]] [[pace=5]]")}}
        await socket.send_json({"id": "good", "type": "subscribe", "payload": good})
        await socket.send_json({"id": "syntax", "type": "subscribe", "payload": {"query": "subscription {"}})
        await socket.send_json({"id": "input", "type": "subscribe", "payload": {"query": STREAM, "variables": {}}})
        seen: dict[str, list[dict[str, Any]]] = {"good": [], "syntax": [], "input": []}
        while not seen["good"] or seen["good"][-1]["type"] != "complete":
            message = await socket.receive_json()
            seen[message["id"]].append(message)
    assert [message["type"] for message in seen["syntax"]] == ["error"]
    assert seen["syntax"][0]["payload"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert seen["input"][0]["type"] == "error"
    last = seen["good"][-2]["payload"]["data"]["completionStream"]
    assert last["__typename"] == "CompletionFinished"


@pytest.mark.parametrize(
    "text", ["[]", "7", '"x"', "null", "{", '{"type": "subscribe", "id": 1}', '{"type": 1}', '{"type":"complete"}']
)
async def test_a_malformed_frame_closes_the_socket_with_4400(server: Server, token: str, text: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"]) as socket,
    ):
        await socket.send_json({"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}})
        await socket.receive_json()
        await socket.send_str(text)
        message = await socket.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4400)


async def test_a_socket_needs_a_token_and_the_one_protocol(server: Server) -> None:
    async with aiohttp.ClientSession() as session:
        socket = await session.ws_connect(server.socket_url, protocols=["graphql-transport-ws"])
        await socket.send_json({"type": "connection_init", "payload": {}})
        assert (await socket.receive()).data == 4403
        old = await session.ws_connect(server.socket_url, protocols=["graphql-ws"])
        assert (await old.receive()).data == 4406


def test_scopes_are_checked_field_by_field(server: Server, organisation: str) -> None:
    writer = server.token(organisation, scopes=[Scope.COMPLETIONS_WRITE])
    span = '{since: "2020-01-01T00:00:00Z", until: "2021-01-01T00:00:00Z"}'
    query = f"{{ completions {{ nodes {{ id }} }} usage(input: {span}) {{ since }} }}"
    answer = post(server, writer, query)
    assert answer["data"] == {"completions": None, "usage": None}
    assert {error["extensions"]["code"] for error in answer["errors"]} == {"FORBIDDEN"}


def test_nothing_of_a_key_is_in_the_log(server: Server, token: str) -> None:
    post(server, token, COMPLETE, {"input": asked("openai", "A secret prompt. [[401]]")})
    log = json.dumps(server.log())
    assert "request" in log
    for secret in ("key-of-openai", token, "A secret prompt", server.secret):
        assert secret not in log
