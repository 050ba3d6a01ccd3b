"""GraphiQL as a person uses it: in Chromium, against the real server, with no network behind it."""

from __future__ import annotations

import os
import time
from decimal import Decimal
from itertools import pairwise

from playwright.sync_api import Browser, expect

from tests.e2e.documents import COMPLETE
from tests.e2e.processes import Server, post

from .desk import Desk

ECHO = {"input": {"model": "scripted/echo", "messages": [{"role": "USER", "content": "Hello."}]}}


def test_the_token_is_sent_and_kept_for_the_session_alone(
    desk: Desk, browser: Browser, server: Server, token: str
) -> None:
    desk.visit()
    assert desk.token_field() == ""
    desk.run()
    assert "ai-middleware token" in desk.response(until="errors")["errors"][0]["message"]
    desk.type_token(token)
    desk.expect_schema()
    assert token in desk.stored("sessionStorage")
    desk.reload()
    desk.expect_schema()
    assert desk.token_field() == token
    desk.run()
    assert desk.response(until="content")["data"]["complete"]["content"] == "You said: Name three rivers."
    assert token not in desk.stored("localStorage")
    with browser.new_context() as other:
        elsewhere = Desk.opened(other, server)
        elsewhere.visit()
        assert elsewhere.token_field() == ""
        assert token not in elsewhere.stored("sessionStorage") + elsewhere.stored("localStorage")
        elsewhere.assert_faultless()


def test_the_printed_address_hands_the_token_over(desk: Desk, server: Server, token: str) -> None:
    desk.visit(token)
    assert desk.page.url == server.url
    assert desk.token_field() == token
    desk.expect_schema()
    assert token in desk.stored("sessionStorage")
    assert token not in desk.stored("localStorage")
    assert token not in server.log()


def test_another_token_is_another_schema_request(desk: Desk, token: str) -> None:
    desk.visit(token)
    desk.expect_schema()
    with desk.page.expect_request(lambda request: "IntrospectionQuery" in (request.post_data or "")) as asked:
        desk.type_token(f"{token} ")
        desk.type_token("another")
    assert asked.value.headers["authorization"] == "Bearer another"
    expect(desk.page.locator(".graphiql-doc-explorer-error")).to_be_visible()
    refused = [fault for fault in desk.faults if "401" in fault]
    assert desk.faults == refused != []
    desk.faults.clear()


def test_a_completion_with_variables(desk: Desk, token: str) -> None:
    desk.visit(token)
    desk.choose("Complete")
    desk.run()
    answer = desk.response(until="attempts")["data"]["complete"]
    assert answer["content"] == "You said: Name three rivers."
    assert answer["usage"]["outputTokens"] == 5
    assert [attempt["outcome"] for attempt in answer["attempts"]] == ["SUCCEEDED"]


def test_tokens_appear_as_they_come(desk: Desk, server: Server, token: str) -> None:
    desk.visit(token)
    desk.choose("Stream")
    desk.watch_deltas()
    desk.run()
    if picture := os.environ.get("PICTURE"):
        desk.wait_for_deltas(40)
        desk.page.screenshot(path=picture)
    finished = desk.response(until="CompletionFinished")["data"]["completionStream"]["completion"]
    text = desk.streamed()
    shown = desk.shown()
    assert len(shown) > 5, "the text grew before one's eyes"
    assert all(later.startswith(earlier) for earlier, later in pairwise(shown))
    assert shown[-1] == text
    assert len(text.split()) == finished["usage"]["outputTokens"] == 120
    assert desk.sockets == [server.socket_url]


def test_stop_cancels_the_stream(desk: Desk, server: Server, token: str) -> None:
    desk.visit(token)
    desk.choose("Stream")
    desk.watch_deltas(stop_at=3)
    desk.run()
    desk.wait_for_deltas(3)
    expect(desk.page.get_by_role("button", name="Execute query")).to_be_visible()
    records = "{ completions(first: 1) { nodes { outcome usage { outputTokens } } } }"
    deadline = time.monotonic() + 60  # it is booked once the server has heard of it
    while not (found := post(server, token, records)["data"]["completions"]["nodes"]):
        assert time.monotonic() < deadline
    assert found[0]["outcome"] == "CANCELLED"
    assert found[0]["usage"]["outputTokens"] < 120


def test_a_config_written_published_and_used(desk: Desk, token: str) -> None:
    desk.visit(token)
    desk.choose("UseConfig")
    desk.run()
    answer = desk.response(until="content")
    assert "errors" not in answer
    assert answer["data"]["createConfig"]["slug"] == "greeting"
    assert answer["data"]["complete"]["content"] == "You said: I am Ada."
    desk.run()
    again = desk.response(until="CONFLICT")
    assert again["data"]["complete"]["content"] == "You said: I am Ada."


def test_usage_by_day(desk: Desk, server: Server, token: str) -> None:
    post(server, token, COMPLETE, ECHO)
    desk.visit(token)
    desk.choose("UsageByDay")
    desk.run()
    report = desk.response(until="buckets")["data"]["usage"]
    assert report["totals"]["completions"] == 1
    assert Decimal(report["totals"]["cost"]) == 0
    assert [bucket["totals"]["completions"] for bucket in report["buckets"]] == [0] * 6 + [1]
    assert all(bucket["start"].endswith("T00:00:00+05:30") for bucket in report["buckets"])


def test_live_usage(desk: Desk, server: Server, token: str) -> None:
    desk.visit(token)
    desk.choose("LiveUsage")
    desk.run()
    first = desk.response(until="asOf")["data"]["usageLive"]
    assert first["totals"]["completions"] == 0
    post(server, token, COMPLETE, ECHO)
    tick = desk.response(until='"completions": 1\\b')["data"]["usageLive"]
    assert tick["asOf"] > first["asOf"]
    assert desk.running()
    desk.stop()


def test_an_example_opened_once_more(desk: Desk, token: str) -> None:
    desk.visit(token)
    desk.page.get_by_role("button", name="Show Examples").click()
    desk.page.get_by_role("region", name="Examples").get_by_role("button", name="One answer").click()
    tabs = desk.page.get_by_role("tab", name="Complete")
    expect(tabs).to_have_count(2)
    expect(tabs.last).to_have_attribute("aria-selected", "true")
    desk.run()
    assert desk.response(until="content")["data"]["complete"]["content"] == "You said: Name three rivers."
