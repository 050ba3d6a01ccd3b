"""Webhooks through the real server, to real receivers: a budget that is passed, retries, and addresses that are not to
be called."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from standardwebhooks.webhooks import Webhook

from tests.servers.receiver import Receiver, listening, running_receiver

from .documents import COMPLETE
from .processes import Server, Vendor, post, running_server, server_environment

CREATE = "mutation ($input: CreateWebhookInput!) { createWebhook(input: $input) { secret webhook { id enabled } } }"
PRICE = "mutation ($input: CreatePriceOverrideInput!) { createPriceOverride(input: $input) { id } }"
LIMIT = "mutation ($input: SetLimitsInput!) { setLimits(input: $input) { alertAt } }"
TEST = "mutation ($input: TestWebhookInput!) { testWebhook(input: $input) { state status reason attempts payload } }"
REDELIVER = "mutation ($input: RedeliverWebhookInput!) { redeliverWebhook(input: $input) { state } }"
WEBHOOKS = "{ webhooks { id enabled disabledReason } }"
DELIVERIES = """query ($id: ID!) {
  webhookDeliveries(webhookId: $id) { nodes { id eventId type state attempts status reason nextAttemptAt } }
}"""
ALERTS = "subscription { limitAlerts { limited name measure percent limit spent } }"
EVENTS = ["BUDGET_THRESHOLD_REACHED"]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver(Receiver()) as running:
        yield running


def ask(server: Server, organisation: str, document: str, asked: Mapping[str, Any] | None = None) -> Any:
    answer = post(server, server.token(organisation), document, None if asked is None else {"input": asked})
    assert "errors" not in answer, answer["errors"]
    (found,) = answer["data"].values()
    return found


def created(server: Server, organisation: str, url: str) -> tuple[Webhook, str]:
    made = ask(server, organisation, CREATE, {"url": url, "events": EVENTS})
    return Webhook(made["secret"]), made["webhook"]["id"]


def deliveries(server: Server, organisation: str, webhook_id: str) -> list[dict[str, Any]]:
    answer = post(server, server.token(organisation), DELIVERIES, {"id": webhook_id})
    found: list[dict[str, Any]] = answer["data"]["webhookDeliveries"]["nodes"]
    return found


def priced(server: Server, organisation: str) -> Decimal:
    """A cent a token; what a call of `spend` costs."""
    ask(
        server, organisation, PRICE, {"provider": "openai", "model": "gpt-4o-mini", "input": "10000", "output": "10000"}
    )
    return spend(server, organisation)


def spend(server: Server, organisation: str) -> Decimal:
    asked = {"model": "openai/gpt-4o-mini", "messages": [{"role": "USER", "content": "hello"}], "maxTokens": 10}
    return Decimal(ask(server, organisation, COMPLETE, asked)["usage"]["cost"])


def until(condition: Callable[[], bool]) -> None:
    """For what other processes do, which send no signal."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def listened(server: Server, organisation: str, count: int, ready: threading.Event) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {server.token(organisation)}", "accept": "text/event-stream"}
    found: list[dict[str, Any]] = []
    with (
        httpx.Client(timeout=60) as client,
        client.stream("POST", server.url, json={"query": ALERTS}, headers=headers) as answer,
    ):
        ready.set()
        deadline = time.monotonic() + 60
        for line in answer.iter_lines():
            assert time.monotonic() < deadline, found
            if line.startswith("data: ") and len(line) > 6:
                found.append(orjson.loads(line[6:])["data"]["limitAlerts"])
                if len(found) == count:
                    return found
    raise AssertionError(found)


def test_a_budget_that_is_passed_is_told_of_once_signed_and_live(
    server: Server, organisation: str, receiver: Receiver
) -> None:
    verifier, webhook_id = created(server, organisation, receiver.url("/budget/\u00e9?a=b"))
    cost = priced(server, organisation)
    limit = 4 * cost
    told = ask(server, organisation, LIMIT, {"usdPerDay": str(limit + 1), "alertAt": [90, 20, 20]})
    assert told["alertAt"] == [20, 90]
    ready = threading.Event()
    with ThreadPoolExecutor() as pool:
        live = pool.submit(listened, server, organisation, 2, ready)
        assert ready.wait(30)
        ask(server, organisation, WEBHOOKS)  # it listens by now
        told = ask(server, organisation, LIMIT, {"usdPerDay": str(limit + 1), "alertAt": [1, 10]})
        spend(server, organisation)
        first, second = receiver.wait_for(2)
        alerts = live.result()
    bodies = [verifier.verify(each.body, dict(each.headers)) for each in (first, second)]
    assert {each.path for each in (first, second)} == {"/budget/%C3%A9?a=b"}
    assert [each["type"] for each in bodies] == ["budget.threshold_reached"] * 2
    assert sorted(each["data"]["percent"] for each in bodies) == [1, 10] == [each["percent"] for each in alerts]
    data = bodies[0]["data"]
    assert (data["limited"], data["name"], data["measure"]) == ("organisation", None, "usd_per_day")
    assert (Decimal(data["limitUsd"]), Decimal(data["spentUsd"])) == (limit + 1, 2 * cost)
    assert Decimal(alerts[0]["spent"]) == 2 * cost
    spend(server, organisation)
    done = deliveries(server, organisation, webhook_id)
    assert [(each["state"], each["attempts"], each["status"]) for each in done] == [("DELIVERED", 1, 204)] * 2
    assert len({each["eventId"] for each in done}) == 2
    assert len(receiver.got) == 2


def test_a_receiver_that_is_down_at_first_gets_it_later(vendor: Vendor, tmp_path: Path) -> None:
    """Though the server is killed meanwhile; and the next one tells of what it has told of not once more."""
    receiver, environment = Receiver(), server_environment(tmp_path, vendor)
    with running_receiver(receiver):
        pass  # its port is known now, and nobody listens there
    with running_server(environment) as server:
        verifier, webhook_id = created(server, "acme", receiver.url())
        cost = priced(server, "acme")
        ask(server, "acme", LIMIT, {"usdPerDay": str(100 * cost), "alertAt": [1, 3]})
        assert spend(server, "acme") == cost
        until(lambda: any(each["reason"] for each in deliveries(server, "acme", webhook_id)))
        (waiting,) = deliveries(server, "acme", webhook_id)
        assert (waiting["state"], waiting["reason"]) == ("PENDING", "can't connect")
        assert waiting["nextAttemptAt"] is not None
        server.process.kill()
        server.process.wait()
    with running_receiver(receiver), running_server(environment) as server:
        spend(server, "acme")
        told = [verifier.verify(each.body, dict(each.headers)) for each in receiver.wait_for(2)]
        until(lambda: [each["state"] for each in deliveries(server, "acme", webhook_id)] == ["DELIVERED"] * 2)
        assert deliveries(server, "acme", webhook_id)[-1]["attempts"] > 1
    assert sorted(each["data"]["percent"] for each in told) == [1, 3]
    assert len(receiver.got) == 2


def test_what_is_given_up_is_sent_when_it_is_asked_for(server: Server, organisation: str, receiver: Receiver) -> None:
    receiver.answers.extend([410, 302, 204])
    verifier, webhook_id = created(server, organisation, receiver.url())
    tried = [ask(server, organisation, TEST, {"id": webhook_id}) for _ in range(3)]
    assert [each["status"] for each in tried] == [410, 302, 204]
    assert [each["state"] for each in tried] == ["FAILED", "FAILED", "DELIVERED"]
    assert tried[1]["reason"] == "HTTP 302: redirects are not followed"
    assert {each.path for each in receiver.got} == {"/hook"}
    failed = deliveries(server, organisation, webhook_id)[-1]
    assert ask(server, organisation, REDELIVER, {"deliveryId": failed["id"]})["state"] == "PENDING"
    again = receiver.wait_for(4)[-1]
    assert again.headers["webhook-id"] == failed["eventId"]
    assert verifier.verify(again.body, dict(again.headers))["type"] == "webhook.test"


def test_receivers_that_misbehave(server: Server, organisation: str) -> None:
    """One that answers without an end, one that is about to for ever, one with heads too long, one that says nothing,
    and one that speaks something else."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n"
    with (
        listening(head, endless=b"x" * 65536) as (endless, _),
        listening(b"", endless=b"HTTP/1.1 100 Continue\r\n\r\n" * 100) as (about_to, _),
        listening(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000) as (long, _),
        listening(b"") as (silent, _),
        listening(b"SSH-2.0-OpenSSH_9.2\r\n") as (other, got),
        ThreadPoolExecutor() as pool,
    ):
        outcomes = list(
            pool.map(lambda port: outcome_at(server, organisation, port), (endless, about_to, long, silent, other))
        )
    assert [each["state"] for each in outcomes] == ["DELIVERED", *["FAILED"] * 4]
    assert outcomes[1]["reason"] == outcomes[3]["reason"] == "no answer within 10 s"
    assert got[0].startswith(b"POST /hook HTTP/1.1\r\n")


def outcome_at(server: Server, organisation: str, port: int) -> dict[str, Any]:
    _, webhook_id = created(server, organisation, f"http://127.0.0.1:{port}/hook")
    found: dict[str, Any] = ask(server, organisation, TEST, {"id": webhook_id})
    return found


def test_what_is_not_public_is_not_called(vendor: Vendor, tmp_path: Path, receiver: Receiver) -> None:
    """Where the operator's list does not have it: refused as it is set, and as it is called."""
    environment = server_environment(tmp_path, vendor)
    with running_server(environment) as server:
        _, webhook_id = created(server, "acme", receiver.url())
        assert ask(server, "acme", TEST, {"id": webhook_id})["state"] == "DELIVERED"
    with running_server({**environment, "OUTBOUND_ALLOWED_NETWORKS": "10.0.0.0/8"}) as server:
        refused = ask(server, "acme", TEST, {"id": webhook_id})
        assert (refused["state"], refused["status"]) == ("FAILED", None)
        assert refused["reason"] == "not a public address"
        cost = priced(server, "acme")
        ask(server, "acme", LIMIT, {"usdPerDay": str(100 * cost), "alertAt": [1]})
        spend(server, "acme")
        until(lambda: len(deliveries(server, "acme", webhook_id)) == 3)
        until(lambda: deliveries(server, "acme", webhook_id)[0]["state"] == "FAILED")
        assert deliveries(server, "acme", webhook_id)[0]["attempts"] == 1
        for url in (receiver.url(), "https://169.254.169.254/", "https://localhost/", "https://[::1]/"):
            answer = post(server, server.token("acme"), CREATE, {"input": {"url": url, "events": EVENTS}})
            assert answer["errors"][0]["extensions"]["path"] == ["input", "url"]
        image = {"parts": [{"image": {"url": "http://169.254.169.254/latest/"}}], "role": "USER"}
        answer = post(
            server, server.token("acme"), COMPLETE, {"input": {"model": "openai/gpt-4o", "messages": [image]}}
        )
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    assert len(receiver.got) == 1
