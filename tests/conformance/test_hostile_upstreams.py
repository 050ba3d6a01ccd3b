"""Upstreams that misbehave, for every vendor, over real sockets, down to the ledger: each case ends as it must, within
the deadline, with what was produced booked and nothing left behind."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest

from persistence.records import Outcome
from tests.servers.raw import chunk

from .hostile import HEAD, NAMES, Answer, Case, Reader, Writer, cut, end_of, finish, plain, sending, stall
from .transcripts import Transcript

HUGE = 50 * 1024 * 1024
SOON = 3600

every_vendor = pytest.mark.parametrize("name", NAMES)
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])


# What is odd and yet whole.


def _crlf(case: Case) -> Answer:
    lines = case.events.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    return sending(lines)


def _comments(case: Case) -> Answer:
    return sending(*(each for event in case.events_cut() for each in (b": a comment\n\n", b":\n", event)))


def _bytewise(case: Case) -> Answer:
    """Characters of several bytes come in as many packets."""
    assert not case.events.isascii()
    return sending(*(case.events[at : at + 1] for at in range(len(case.events))))


def _slow(case: Case) -> Answer:
    async def write(reader: Reader, writer: Writer) -> None:
        writer.write(HEAD)
        for event in case.events_cut():
            for half in (event[: len(event) // 2], event[len(event) // 2 :]):
                writer.write(chunk(half))
                await asyncio.sleep(0.005)
        await finish(reader, writer)

    return write


def _from_the_future(case: Case) -> Answer:
    return sending(*(_with_more(event) for event in case.events_cut()))


def _with_more(event: bytes) -> bytes:
    """Fields that nobody knows, in every object of an event; and an event that nobody knows where it has a name."""
    found = re.search(rb"^data: ?(\{.*\})\s*$", event, re.MULTILINE)
    if found is None:
        return event
    told = orjson.dumps(_grown(orjson.loads(found[1])))
    unknown = b'event: from_the_future\ndata: {"type":"from_the_future","x":[1]}\n\n'
    return (unknown if event.startswith(b"event:") else b"") + event.replace(found[1], told)


def _grown(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _grown(child) for name, child in node.items()} | {"x_future": {"a": [1, None]}}
    return [_grown(child) for child in node] if isinstance(node, list) else node


@every_vendor
@pytest.mark.parametrize("spoiled", [_crlf, _comments, _bytewise, _slow, _from_the_future])
async def test_what_is_odd_and_yet_whole_is_the_answer(name: str, spoiled: Callable[[Case], Answer]) -> None:
    ending, case, _ = await end_of(name, spoiled, streamed=True)
    assert (ending.code, ending.text) == (None, case.content)
    (entry,) = ending.entries
    assert (entry.outcome, entry.estimated) == (Outcome.SUCCEEDED, False)
    usage = Transcript(name, "text_stream").completion.usage
    assert usage is not None
    assert (entry.input_tokens, entry.output_tokens) == (usage.input_tokens, usage.output_tokens)


@every_vendor
async def test_a_plain_answer_with_unknown_fields_is_the_answer(name: str) -> None:
    ending, _, _ = await end_of(name, lambda case: plain(200, orjson.dumps(_grown(case.body))), streamed=False)
    assert ending.text == Transcript(name, "text").completion.content
    assert not ending.entries[0].estimated


def _without_usage(node: Any) -> Any:
    if isinstance(node, dict):
        kept = {name: child for name, child in node.items() if name not in ("usage", "usageMetadata", "x_groq")}
        return {name: _without_usage(child) for name, child in kept.items()}
    return [_without_usage(child) for child in node] if isinstance(node, list) else node


def _uncounted(event: bytes) -> bytes:
    found = re.search(rb"^data: ?(\{.*\})\s*$", event, re.MULTILINE)
    return event if found is None else event.replace(found[1], orjson.dumps(_without_usage(orjson.loads(found[1]))))


@every_vendor
@both_ways
async def test_what_nobody_counted_is_estimated_and_says_so(name: str, streamed: bool) -> None:
    if name == "anthropic" and streamed:  # it says that its events always have usage: one without is broken
        ending, _, _ = await end_of(name, lambda case: sending(*map(_uncounted, case.events_cut())), streamed=True)
        assert ending.code == "PROVIDER_BAD_RESPONSE"
        return
    ending, _, _ = await end_of(
        name,
        lambda case: (
            sending(*map(_uncounted, case.events_cut()))
            if streamed
            else plain(200, orjson.dumps(_without_usage(case.body)))
        ),
        streamed=streamed,
    )
    assert ending.code is None
    (entry,) = ending.entries
    assert (entry.outcome, entry.estimated) == (Outcome.SUCCEEDED, True)
    assert min(entry.input_tokens, entry.output_tokens) > 0


# What stops half-way: what was produced is booked, and nobody tries again.


def _half(case: Case) -> list[bytes]:
    """As many events as it takes for some text, and not the end."""
    events = case.events_cut()
    return events[: max(2, len(events) // 2)]


@every_vendor
@pytest.mark.parametrize(
    ("spoiled", "code"),
    [
        (lambda case: sending(*_half(case), then=stall), "DEADLINE_EXCEEDED"),
        (lambda case: sending(*_half(case), case.events_cut()[-2][:9], then=cut), "PROVIDER_UNAVAILABLE"),
        (lambda case: sending(*_half(case)), "PROVIDER_BAD_RESPONSE"),
        (lambda case: sending(*_half(case), b'data: {"broken\n\n'), "PROVIDER_BAD_RESPONSE"),
        (lambda case: sending(*_half(case), b"data: \xff\xfe\n\n"), "PROVIDER_BAD_RESPONSE"),
        (lambda case: sending(*_half(case), b"data: " + b"x" * HUGE), "PROVIDER_BAD_RESPONSE"),
    ],
    ids=["stall", "cut in mid-event", "end too early", "no JSON", "no UTF-8", "an event of 50 MB"],
)
async def test_what_stops_half_way_is_booked_as_far_as_it_came(
    name: str, spoiled: Callable[[Case], Answer], code: str
) -> None:
    timeout_ms = 400 if code == "DEADLINE_EXCEEDED" else 20_000
    ending, case, server = await end_of(name, spoiled, streamed=True, timeout_ms=timeout_ms)
    assert (ending.code, ending.provider, ending.retryable) == (code, name, True)
    assert ending.text
    assert case.content.startswith(ending.text)
    (entry,) = ending.entries
    assert (entry.outcome, entry.error_code, entry.estimated) == (Outcome.FAILED, code, True)
    assert min(entry.input_tokens, entry.output_tokens) > 0
    assert len(server.heads) == 1


@every_vendor
async def test_an_error_in_mid_stream_is_the_vendors_own(name: str) -> None:
    shown = Transcript(name if name != "acme" else "compatible", "error_in_stream")
    ending, _, _ = await end_of(name, lambda case: sending(shown.events), streamed=True)
    told = shown.expected["error"]
    assert (ending.code, ending.provider) == (told["code"], name)
    assert ending.retryable is told.get("retryable", ending.retryable)
    assert {entry.outcome for entry in ending.entries} == {Outcome.FAILED}


# What is refused, or is no answer at all.


STATUSES = [
    (429, "PROVIDER_RATE_LIMITED"),
    (408, "PROVIDER_TIMEOUT"),
    (500, "PROVIDER_UNAVAILABLE"),
    (503, "PROVIDER_UNAVAILABLE"),
    (529, "PROVIDER_UNAVAILABLE"),
]


@every_vendor
@both_ways
@pytest.mark.parametrize(("status", "code"), STATUSES, ids=[str(status) for status, _ in STATUSES])
async def test_a_status_that_passes_is_tried_again_and_then_told(
    name: str, streamed: bool, status: int, code: str
) -> None:
    ending, _, server = await end_of(name, lambda case: plain(status, b"{}"), streamed=streamed)
    assert (ending.code, ending.provider, ending.retryable) == (code, name, True)
    assert len(server.heads) == len(ending.entries) == 3
    billed = (name, status) == ("azure", 408)  # as its page says
    assert {entry.estimated for entry in ending.entries} == {billed}
    assert {entry.cost for entry in ending.entries} == {None if billed else 0}


@every_vendor
@both_ways
async def test_a_gateways_page_of_html_is_an_outage(name: str, streamed: bool) -> None:
    page = plain(502, b"<html><h1>502 Bad Gateway</h1></html>", kind="text/html")
    ending, _, server = await end_of(name, lambda case: page, streamed=streamed)
    assert (ending.code, ending.provider, ending.retryable) == ("PROVIDER_UNAVAILABLE", name, True)
    assert len(server.heads) == 3


@every_vendor
@both_ways
@pytest.mark.parametrize("dated", [False, True], ids=["seconds", "date"])
async def test_a_vendor_that_asks_to_wait_for_longer_than_there_is_time_is_believed(
    name: str, streamed: bool, dated: bool
) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=SOON), usegmt=True)
    refusal = plain(429, b"{}", f"retry-after: {until if dated else SOON}")
    ending, _, server = await end_of(name, lambda case: refusal, streamed=streamed)
    assert (ending.code, ending.retryable) == ("PROVIDER_RATE_LIMITED", True)
    assert ending.retry_after_ms is not None
    assert SOON * 1000 - 20_000 < ending.retry_after_ms <= SOON * 1000
    assert len(server.heads) == 1


@every_vendor
@both_ways
async def test_an_error_in_a_200_is_an_error(name: str, streamed: bool) -> None:
    shown = Transcript(name, "error_rate_limit" if name != "compatible" else "error_invalid")
    body = orjson.dumps(shown.response["body"])
    ending, _, _ = await end_of(name, lambda case: plain(200, body), streamed=streamed)
    assert ending.provider == name
    assert ending.code is not None
    assert ending.code.startswith("PROVIDER_")
    assert ending.retryable is not None
    assert {entry.outcome for entry in ending.entries} == {Outcome.FAILED}


NO_ANSWERS = {
    "malformed": plain(200, b'{"id": '),
    "empty": plain(200, b""),
    "null": plain(200, b"null"),
    "a list": plain(200, b"[]"),
    "50 MB": plain(200, b" " * HUGE),
    "an empty stream": sending(),
}


@every_vendor
@both_ways
@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_what_is_no_answer_is_a_bad_response(name: str, streamed: bool, answer: Answer) -> None:
    ending, _, _ = await end_of(name, lambda case: answer, streamed=streamed, timeout_ms=20_000)
    assert (ending.code, ending.provider) == ("PROVIDER_BAD_RESPONSE", name)
    assert ending.retryable is not None
    assert all(entry.outcome is Outcome.FAILED for entry in ending.entries)


@every_vendor
@both_ways
@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(name: str, streamed: bool, status: int) -> None:
    ending, _, server = await end_of(name, lambda case: plain(status, b"", "location: /elsewhere"), streamed=streamed)
    assert ending.code is not None
    assert (ending.provider, ending.retryable is not None) == (name, True)
    assert not any(b"elsewhere" in head for head in server.heads)


@every_vendor
@both_ways
async def test_a_vendor_that_never_answers_meets_the_deadline(name: str, streamed: bool) -> None:
    begun = asyncio.get_running_loop().time()
    ending, _, server = await end_of(name, lambda case: stall, streamed=streamed, timeout_ms=300)
    assert asyncio.get_running_loop().time() - begun < 20
    assert (ending.code, ending.provider, ending.retryable) == ("DEADLINE_EXCEEDED", name, True)
    assert len(server.heads) == 1
    (entry,) = ending.entries
    assert (entry.outcome, entry.error_code, entry.estimated) == (Outcome.FAILED, "DEADLINE_EXCEEDED", True)
