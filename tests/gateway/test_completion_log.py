"""One event for each completion: what it says, and what it does not."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.completion_log import MAX_TEXT, CompletionLog
from persistence.batch_records import Submitter
from persistence.records import Outcome
from providers.types import ImagePart, Media, Message, ProviderCompletion, ProviderEmbeddings, Role, TextPart
from resolvers.errors import LimitDetail
from resolvers.observing import CompletionEnd, CompletionOutcome
from resolvers.principal import Origin, Principal
from resolvers.types import CompleteCommand, EmbedCommand, Target
from tests.persistence.batches import batch
from tests.persistence.entries import entry

TARGET = Target("openai", "gpt-4.1")
ASKED = CompleteCommand(TARGET, (Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "A secret question.")))
END = CompletionEnd(
    operation="chat",
    id="cmp_1",
    created_at=datetime.now(UTC),
    principal=Principal("key_1", "acme", frozenset(), 0.0, origin=Origin("203.0.113.7", "r-1")),
    command=ASKED,
    target=TARGET,
    outcome=CompletionOutcome.SUCCEEDED,
    error_code=None,
    limit=None,
    streamed=True,
    seconds=1.23456,
    upstream_s=1.2,
    first_token_s=0.25,
    entries=[entry(attempt=1, cost=Decimal("0.001")), entry(attempt=2, cost=Decimal("0.002"))],
    answer=ProviderCompletion(content="A secret answer."),
)


def logged(end: CompletionEnd, *, content: bool = False) -> dict[str, Any]:
    with capture_logs() as logs:
        CompletionLog(content=content).completed(end)
    (event,) = logs
    return dict(event)


def test_what_it_says() -> None:
    assert logged(END) == {
        "event": "completion",
        "log_level": "info",
        "operation": "chat",
        "completion_id": "cmp_1",
        "request_id": "r-1",
        "organisation": "acme",
        "principal": "key_1",
        "provider": "openai",
        "model": "gpt-4.1",
        "outcome": "succeeded",
        "streamed": True,
        "attempts": 2,
        "input_tokens": 2400,
        "output_tokens": 160,
        "cached_input_tokens": 0,
        "reasoning_tokens": 0,
        "estimated": False,
        "cost_usd": "0.003",
        "latency_ms": 1234.6,
        "upstream_ms": 1200.0,
        "time_to_first_token_ms": 250.0,
    }


def test_what_a_vendor_s_batch_told_is_an_event_too() -> None:
    told = entry(cost=Decimal("0.001"), outcome=Outcome.FAILED, error_code="PROVIDER_INVALID_REQUEST")
    with capture_logs() as logs:
        CompletionLog(content=True).collected(told, batch(submitter=Submitter("key_1", request_id="r-7")))
    (event,) = logs
    assert (event["event"], event["completion_id"], event["organisation"]) == (
        "completion",
        told.completion_id,
        told.organisation,
    )
    assert (event["outcome"], event["error_code"]) == ("failed", "PROVIDER_INVALID_REQUEST")
    assert (event["cost_usd"], event["input_tokens"]) == ("0.001", told.input_tokens)
    assert event.keys() <= {*logged(END), "error_code"}
    assert event["request_id"] == "r-7"
    assert "latency_ms" not in event


def test_a_refusal_says_by_what() -> None:
    limit = LimitDetail("organisation", None, "usd_per_day", "1", "1", "0.1")
    end = replace(END, outcome=CompletionOutcome.REFUSED, error_code="BUDGET_EXCEEDED", limit=limit, entries=[])
    event = logged(end)
    assert (event["error_code"], event["limit"]) == ("BUDGET_EXCEEDED", "organisation: usd_per_day")
    assert (event["attempts"], event["cost_usd"]) == (0, "0")


def test_a_config_is_named() -> None:
    event = logged(replace(END, command=replace(ASKED, config="support", config_version=3)))
    assert (event["config"], event["config_version"]) == ("support", 3)


@pytest.mark.parametrize("content", [False, True])
def test_texts_are_there_where_they_are_asked_for_alone(content: bool) -> None:
    event = logged(END, content=content)
    assert ("secret" in str(event)) is content
    if content:
        assert event["asked"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "A secret question."},
        ]
        assert event["answered"] == "A secret answer."


def test_long_texts_are_cut_and_pictures_are_left_out() -> None:
    parts = (TextPart("What is this?"), ImagePart(Media(data="iVBORw==", media_type="image/png")))
    command = CompleteCommand(TARGET, (Message(Role.USER, "x" * (MAX_TEXT + 1)), Message(Role.USER, parts=parts)))
    long, picture = logged(replace(END, command=command), content=True)["asked"]
    assert long["content"] == "x" * MAX_TEXT + "…"
    assert picture["content"] == "What is this?\n[media]"


def test_texts_to_embed() -> None:
    end = replace(END, operation="embeddings", command=EmbedCommand(TARGET, ("a", "b")), answer=ProviderEmbeddings(()))
    event = logged(end, content=True)
    assert (event["asked"], event["answered"]) == (["a", "b"], None)
