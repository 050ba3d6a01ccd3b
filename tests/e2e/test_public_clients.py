"""The public audit of GraphQL over HTTP, and the clients that front ends use for streams, from their npm packages
against the real server: with tokens, and with every limit on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.servers.missing import missing

from .documents import Told
from .processes import Server, Vendor
from .test_cancellation import LEAVES_WITHIN_S, closed_in

_FOLDER = Path(__file__).parents[1] / "clients"
_MISSING = "the public clients of GraphQL need Node and npm: `make test` installs them into tests/clients"
MISTAKES = ["syntax", "unknownField", "unknownOperation"]
ORGANISATION = "public-clients"


def clients_or_skip() -> None:
    if shutil.which("node") is None or not (_FOLDER / "node_modules").is_dir():
        missing(_MISSING)


class Clients:
    """What each script says. The tests of this file share a run."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._said: dict[str, Any] = {}

    def said(self, script: str) -> Any:
        if script not in self._said:
            self._said[script] = self._run(script)
        return self._said[script]

    def _run(self, script: str) -> Any:
        clients_or_skip()
        token, brief = self._server.token(ORGANISATION), self._server.token(ORGANISATION, lifetime_s=8)
        url = self._server.socket_url if script == "ws" else self._server.url
        done = subprocess.run(
            ["node", str(_FOLDER / f"{script}.mjs"), url],
            env={**os.environ, "TOKEN": token, "BRIEF_TOKEN": brief, "MODEL": script},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def clients(server: Server) -> Clients:
    return Clients(server)


@pytest.fixture(params=["sse", "ws"])
def heard(request: pytest.FixtureRequest, clients: Clients) -> Any:
    """What each client of streams has heard, by scenario."""
    return {**clients.said(request.param), "client": request.param}


def events(scenario: Any) -> list[dict[str, Any]]:
    return [result["data"]["completionStream"] for result in scenario["results"]]


def test_the_audit_passes_whole(clients: Clients) -> None:
    results = clients.said("audit")
    assert [result for result in results if result["status"] != "ok"] == []
    assert len(results) == 61
    assert {result["name"].split()[0] for result in results} == {"MUST", "SHOULD", "MAY"}


def test_a_query_and_a_mutation_have_one_result(heard: Any) -> None:
    assert heard["query"] == {"results": [Told(data={"viewer": {"organisation": ORGANISATION}})], "complete": True}
    assert heard["mutation"]["results"] == [Told(data={"complete": {"content": "token0 token1 token2"}})]
    assert heard["mutation"]["complete"]


def test_a_stream_comes_in_order_to_its_end(heard: Any) -> None:
    seen = events(heard["stream"])
    assert heard["stream"]["complete"]
    assert (seen[0]["__typename"], seen[-1]["__typename"]) == ("CompletionStarted", "CompletionFinished")
    assert "".join(event.get("text", "") for event in seen) == "token0 token1 token2 token3 token4"
    sequences = [event["sequence"] for event in seen]
    assert sequences == sorted(set(sequences))


def test_a_completion_that_fails_is_an_event_and_an_end(heard: Any) -> None:
    assert events(heard["failing"])[-1]["code"] == "PROVIDER_INVALID_REQUEST"
    assert heard["failing"]["complete"]


async def test_who_leaves_is_let_go(heard: Any, vendor: Vendor) -> None:
    assert heard["cancelled"]["complete"]
    assert 3 <= len(heard["cancelled"]["results"]) < 1000, "of 5,000; some were on their way as it left"
    model = heard["client"] + "cancelled"
    assert await closed_in(vendor, "openai", model) < LEAVES_WITHIN_S
    assert vendor.tally("openai", model)["disconnects"] == 1


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_as_each_protocol_has_it(heard: Any, mistake: str) -> None:
    """Over server-sent events as a result, over a WebSocket as an error; its siblings there go on."""
    if heard["client"] == "sse":
        (result,) = heard[mistake]["results"]
        assert heard[mistake]["complete"]
        assert "data" not in result
        errors = result["errors"]
    else:
        assert heard["together"][mistake]["results"] == []
        errors = heard["together"][mistake]["error"]
    assert [error["extensions"]["code"] for error in errors] == ["BAD_USER_INPUT"]


async def test_an_expired_token_ends_what_it_opened(heard: Any, vendor: Vendor) -> None:
    *before, last = heard["expired"]["results"]
    assert len(before) > 5
    if heard["client"] == "sse":
        assert [error["extensions"]["code"] for error in last["errors"]] == ["UNAUTHENTICATED"]
        assert heard["expired"]["complete"]
    else:
        assert heard["expired"]["error"] == {"code": 4401, "reason": "Unauthorized: the token has expired"}
    assert await closed_in(vendor, "openai", heard["client"] + "expired") < LEAVES_WITHIN_S


def test_a_stranger_is_refused(heard: Any) -> None:
    error = heard["stranger"]["error"]
    assert heard["stranger"]["results"] == []
    assert error["status"] == 401 if heard["client"] == "sse" else error["code"] == 4403


def test_one_socket_serves_several_operations(clients: Clients) -> None:
    heard = clients.said("ws")
    assert heard["together"]["sockets"] == 1
    assert heard["together"]["good"]["complete"]
    assert events(heard["together"]["good"])[-1]["__typename"] == "CompletionFinished"
    again, before = heard["afterCancelled"], heard["query"]
    assert [each["data"] for each in again["results"]] == [each["data"] for each in before["results"]]
    assert again["complete"]
    assert heard["pinged"]


def test_an_id_that_is_in_use_closes_the_socket(clients: Clients) -> None:
    for operation in clients.said("ws")["sameId"]:
        assert operation["error"] == {"code": 4409, "reason": "Subscriber for the-same already exists"}


def test_nothing_of_it_left_a_traceback(heard: Any, server: Server) -> None:
    assert "Traceback" not in server.log()
