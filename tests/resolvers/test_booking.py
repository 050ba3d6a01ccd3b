"""What an attempt is booked as: exact where the vendor has told, estimated where it has not."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.records import CostSource, LedgerEntry, Outcome
from providers.errors import (
    ProviderAuthError,
    ProviderContentFilteredError,
    ProviderContextLengthError,
    ProviderError,
    ProviderInvalidRequestError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from providers.fold import Fold
from providers.prices import cost_of
from providers.types import (
    CompletionRequest,
    Finished,
    FinishReason,
    Message,
    ProviderCompletion,
    ReasoningDelta,
    ResponseFormat,
    Role,
    StreamEvent,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from resolvers import booking
from resolvers.price_book import NO_RULES
from resolvers.types import Attempt, Target, TokenUsage
from resolvers.unseen import Sight, written_tokens
from tests.persistence.entries import entries, entry

from .scene import ACME, command

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRICED = Target("openai", "gpt-4.1")
UNPRICED = Target("alpha", "a-1")
REQUEST = CompletionRequest("gpt-4.1", (Message(Role.USER, "x" * 40),))


def opening(target: Target = UNPRICED, request: CompletionRequest = REQUEST, **changes: Any) -> LedgerEntry:
    return booking.opening_entry(
        principal=ACME,
        command=command(**changes),
        completion_id="cmp_1",
        created_at=NOON,
        attempt=2,
        target=target,
        input_size=booking.input_bytes(request.messages, request.tools),
        streamed=True,
    )


def folded(*events: StreamEvent) -> Fold:
    fold = Fold()
    for event in events:
        fold.add(event)
    return fold


def answered(answer: ProviderCompletion, target: Target = UNPRICED, most: int | None = None) -> LedgerEntry:
    return booking.succeeded(
        opening(target), answer, prices=NO_RULES, most_output=most, latency_ms=30, first_token_ms=10
    )


def fragment(*events: StreamEvent, ms: int = 0) -> booking.Fragment:
    """Of a stream of a model that is not known, which was silent for so long, and was not left."""
    seen = folded(*events)
    sight = Sight(streamed=True, elapsed_ms=ms, thinking_ms=ms, held=False, left=False)
    written = written_tokens(command(), UNPRICED, seen, sight)
    return booking.Fragment(seen, opening().input_tokens, written, latency_ms=30, first_token_ms=10)


def failed(error: ProviderError, *events: StreamEvent, ms: int = 0, target: Target = UNPRICED) -> LedgerEntry:
    return booking.failed(opening(target), error, fragment(*events, ms=ms), prices=NO_RULES)


def interrupted(*events: StreamEvent, code: str | None = None, sent: bool = True, ms: int = 0) -> LedgerEntry:
    return booking.interrupted(opening(), fragment(*events, ms=ms), error_code=code, prices=NO_RULES, sent=sent)


def tokens(booked: LedgerEntry) -> tuple[int, int, bool]:
    return booked.input_tokens, booked.output_tokens, booked.estimated


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_four_bytes_are_a_token(size: int, tokens: int) -> None:
    assert booking.estimate_tokens(size) == tokens


def test_all_that_the_model_reads_counts_in_bytes() -> None:
    messages = (
        Message(Role.SYSTEM, "äöü"),
        Message(Role.ASSISTANT, tool_calls=(ToolCall("id is not read", "look_up", '{"q":1}'),)),
        Message(Role.TOOL, "four", tool_call_id="id is not read"),
    )
    assert booking.input_bytes(messages, ()) == 6 + 7 + 7 + 4
    schema = {"type": "object"}
    plain, asked = command(), command(response_format=ResponseFormat(schema))
    assert booking.input_size(asked) == booking.input_size(plain) + len('{"type":"object"}')
    assert booking.input_size(command(response_format=ResponseFormat())) == booking.input_size(plain) == len("hello")
    tool = Tool("look_up", "Finds it.", schema)
    assert booking.input_bytes((), (tool,)) >= len("look_upFinds it.") + len("object")


def test_an_opening_entry_says_who_what_and_where_before_anything_is_known() -> None:
    booked = opening(labels={"team": "search"}, end_user="u1", idempotency_key="k1")
    assert (booked.time, booked.completion_id, booked.attempt) == (NOON, "cmp_1", 2)
    assert (booked.organisation, booked.principal) == ("acme", "key_1")
    assert (booked.provider, booked.model, booked.streamed) == ("alpha", "a-1", True)
    assert (booked.labels, booked.end_user, booked.idempotency_key) == ({"team": "search"}, "u1", "k1")
    assert (booked.outcome, tokens(booked), booked.cost) == (Outcome.ABANDONED, (10, 0, True), None)


def test_an_entry_names_the_config_and_its_version() -> None:
    booked = opening(config="greet", config_version=3)
    assert (booked.config, booked.config_version) == ("greet", 3)
    assert (opening().config, opening().config_version) == (None, None)


def test_an_abandoned_attempt_is_booked_with_the_price_of_its_input() -> None:
    note = opening(PRICED)
    booked = booking.abandoned(note, NO_RULES)
    assert (booked.outcome, tokens(booked)) == (Outcome.ABANDONED, (10, 0, True))
    assert booked.cost == cost_of("openai", "gpt-4.1", Usage(input_tokens=10), NOON).cost
    assert booked.cost_source is CostSource.PRICE_TABLE


@given(entries.filter(lambda each: each.outcome is not Outcome.ABANDONED))
def test_an_attempt_whose_end_was_known_is_booked_as_it_was(known: LedgerEntry) -> None:
    assert booking.abandoned(known, NO_RULES) == known


def test_an_answer_is_booked_by_the_vendors_figures() -> None:
    usage = Usage(1000, 200, cached_input_tokens=600, cache_write_tokens=50, reasoning_tokens=80)
    booked = answered(ProviderCompletion("hi", finish_reason=FinishReason.STOP, usage=usage), PRICED)
    assert (booked.outcome, booked.error_code, tokens(booked)) == (Outcome.SUCCEEDED, None, (1000, 200, False))
    assert (booked.cached_input_tokens, booked.cache_write_tokens, booked.reasoning_tokens) == (600, 50, 80)
    priced = cost_of("openai", "gpt-4.1", usage, NOON)
    assert priced.cost is not None
    assert priced.cost > 0
    assert (booked.cost, booked.cost_source, booked.price_version) == (
        priced.cost,
        CostSource.PRICE_TABLE,
        priced.price_version,
    )
    assert (booked.latency_ms, booked.time_to_first_token_ms, booked.finish_reason) == (30, 10, "stop")


def test_a_usage_of_nothing_is_a_figure_too() -> None:
    assert tokens(answered(ProviderCompletion("", usage=Usage()))) == (0, 0, False)


def test_the_vendors_own_cost_wins_over_the_table() -> None:
    usage = Usage(1000, 200, cost=Decimal("0.000001"))
    booked = answered(ProviderCompletion("hi", usage=usage), PRICED)
    assert (booked.cost, booked.cost_source, booked.price_version) == (Decimal("0.000001"), CostSource.PROVIDER, None)


def test_an_answer_without_figures_is_estimated_from_all_that_was_written() -> None:
    answer = ProviderCompletion("äöäö", "12345678", (ToolCall("id", "f", '{"q":1}'),))
    assert tokens(answered(answer)) == (10, 6, True)
    assert tokens(answered(answer, most=5)) == (10, 5, True), "no more than it was asked for"


def test_a_model_without_a_price_has_no_cost() -> None:
    booked = answered(ProviderCompletion("hi", usage=Usage(5, 5)))
    assert (booked.cost, booked.cost_source) == (None, CostSource.UNKNOWN)


@pytest.mark.parametrize(
    "error",
    [
        ProviderAuthError("no", provider="alpha", status=401),
        ProviderRateLimitedError("no", provider="alpha", status=429),
        ProviderUnavailableError("no", provider="alpha", status=500),
        ProviderUnavailableError("no route", provider="alpha", sent=False),
        ProviderTimeoutError("no answer to a connect", provider="alpha", sent=False),
    ],
)
def test_an_error_in_place_of_an_answer_costs_nothing(error: ProviderError) -> None:
    booked = failed(error, ms=1_000)
    assert (booked.outcome, booked.error_code, tokens(booked)) == (Outcome.FAILED, error.code, (0, 0, False))
    assert (booked.cost, booked.cost_source, booked.price_version) == (0, CostSource.NOT_BILLED, None)


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        (ProviderContentFilteredError("flagged", provider="azure", status=400), True),
        (ProviderContextLengthError("too long", provider="azure", status=400), True),
        (ProviderTimeoutError("too slow", provider="azure", status=408), True),
        (ProviderInvalidRequestError("no such field", provider="azure", status=400), False),
        (ProviderAuthError("no", provider="azure", status=401), False),
        (ProviderRateLimitedError("no", provider="azure", status=429), False),
        (ProviderTimeoutError("no connection", provider="azure", sent=False), False),
    ],
)
def test_azure_bills_what_it_has_processed_before_it_refuses(error: ProviderError, billed: bool) -> None:
    booked = failed(error, target=Target("azure", "mine"))
    assert tokens(booked) == ((10, 0, True) if billed else (0, 0, False))
    assert tokens(failed(error, target=Target("openai", "gpt-4.1"))) == (0, 0, False)


@pytest.mark.parametrize("status", [None, 200])
def test_an_error_after_the_vendor_had_the_request_may_have_cost_something(status: int | None) -> None:
    booked = failed(ProviderTimeoutError("silence", provider="alpha", status=status))
    assert (booked.outcome, booked.error_code, tokens(booked)) == (Outcome.FAILED, "PROVIDER_TIMEOUT", (10, 0, True))
    assert booked.cost_source is CostSource.UNKNOWN


FINAL = Finished(FinishReason.STOP, Usage(7, 90, reasoning_tokens=4))
CUT = [
    pytest.param((), (10, 0, True), id="nothing"),
    pytest.param((TextDelta("x" * 40),), (10, 10, True), id="text"),
    pytest.param(
        (ReasoningDelta("x" * 8), ToolCallDelta(0, "id", "look", "{}äö")), (10, 5, True), id="reasoning and tools"
    ),
    pytest.param((Finished(usage=Usage(7, 1)), TextDelta("x" * 40)), (7, 10, True), id="early usage"),
    pytest.param((Finished(usage=Usage(7, 50)), TextDelta("x" * 40)), (7, 50, True), id="early usage, larger"),
    pytest.param((TextDelta("x"), FINAL), (7, 90, False), id="final usage"),
    pytest.param((Finished(FinishReason.STOP), Finished(usage=Usage(7, 90))), (7, 90, False), id="in two events"),
    pytest.param((TextDelta("x" * 40), Finished(FinishReason.STOP)), (10, 10, True), id="an end without usage"),
]


@pytest.mark.parametrize(("events", "figures"), CUT)
def test_what_is_cut_off_is_booked_as_far_as_it_is_known(
    events: tuple[StreamEvent, ...], figures: tuple[int, int, bool]
) -> None:
    error = ProviderUnavailableError("cut", provider="alpha")
    for booked in (interrupted(*events), interrupted(*events, code="DEADLINE_EXCEEDED"), failed(error, *events)):
        assert tokens(booked) == figures


@pytest.mark.parametrize(
    ("events", "figures"),
    [
        pytest.param((), (10, 100, True), id="nothing seen"),
        pytest.param((TextDelta("x" * 40),), (10, 110, True), id="besides text"),
        pytest.param((Finished(usage=Usage(7, 150)), TextDelta("x" * 40)), (7, 150, True), id="the vendor knows more"),
        pytest.param((TextDelta("x" * 40), FINAL), (7, 90, False), id="the vendor knows all"),
    ],
)
def test_what_nobody_saw_is_booked_too(events: tuple[StreamEvent, ...], figures: tuple[int, int, bool]) -> None:
    error = ProviderUnavailableError("cut", provider="alpha")
    for booked in (interrupted(*events, ms=1_000), failed(error, *events, ms=1_000)):
        assert tokens(booked) == figures


def test_early_usage_keeps_the_kinds_of_input_it_tells() -> None:
    booked = interrupted(
        Finished(usage=Usage(100, 1, cached_input_tokens=60, cache_write_tokens=10)), TextDelta("x" * 40)
    )
    assert (booked.cached_input_tokens, booked.cache_write_tokens, tokens(booked)) == (60, 10, (100, 10, True))


def test_who_ended_it_is_in_the_outcome() -> None:
    by_caller, by_deadline = interrupted(), interrupted(code="DEADLINE_EXCEEDED")
    assert (by_caller.outcome, by_caller.error_code) == (Outcome.CANCELLED, None)
    assert (by_deadline.outcome, by_deadline.error_code) == (Outcome.FAILED, "DEADLINE_EXCEEDED")
    assert (by_caller.latency_ms, by_caller.time_to_first_token_ms) == (30, 10)


def test_what_no_vendor_saw_costs_nothing() -> None:
    booked = interrupted(code="DEADLINE_EXCEEDED", sent=False, ms=1_000)
    assert (booked.cost, booked.cost_source) == (Decimal(0), CostSource.NOT_BILLED)
    assert tokens(booked) == (0, 0, False)
    assert (booked.outcome, booked.error_code) == (Outcome.FAILED, "DEADLINE_EXCEEDED")


@given(st.lists(st.one_of(st.text(min_size=4).map(TextDelta), st.text(min_size=4).map(ReasoningDelta)), max_size=10))
def test_a_plain_answer_and_its_cut_stream_are_estimated_alike(events: list[StreamEvent]) -> None:
    """But for pieces of fewer bytes than a token usually has."""
    plain = answered(folded(*events).completion())
    assert tokens(plain) == tokens(interrupted(*events))


def test_each_piece_of_a_stream_is_a_token_at_least() -> None:
    """Else whoever leaves a stream of short ones before its figures come has it for a part of its price."""
    pieces = [TextDelta(""), *map(TextDelta, "1 2 3"), ReasoningDelta("a"), ToolCallDelta(0, "id", "f", "{"), FINAL]
    assert tokens(interrupted(*pieces[:-1])) == (10, 7, True)
    assert tokens(interrupted(*pieces)) == (7, 90, False)


def test_a_completion_is_the_sum_of_its_attempts() -> None:
    attempts = [
        entry(input_tokens=1, output_tokens=2, cached_input_tokens=3, cache_write_tokens=4, reasoning_tokens=5),
        entry(input_tokens=10, output_tokens=20, cached_input_tokens=30, cache_write_tokens=40, reasoning_tokens=50),
    ]
    total = booking.total_usage(attempts)
    assert (total.input_tokens, total.output_tokens, total.cached_input_tokens) == (11, 22, 33)
    assert (total.cache_write_tokens, total.reasoning_tokens, total.estimated) == (44, 55, False)
    assert total.cost == Decimal("0.00608")
    assert booking.total_usage([*attempts, entry(estimated=True)]).estimated


@pytest.mark.parametrize(
    ("attempts", "cost", "source"),
    [
        ([], "0", CostSource.NOT_BILLED),
        ([("0", CostSource.NOT_BILLED)], "0", CostSource.NOT_BILLED),
        ([("0", CostSource.NOT_BILLED), ("0.1", CostSource.PRICE_TABLE)], "0.1", CostSource.PRICE_TABLE),
        ([("0.1", CostSource.PROVIDER), ("0", CostSource.NOT_BILLED)], "0.1", CostSource.PROVIDER),
        ([("0.1", CostSource.PRICE_TABLE), ("0.2", CostSource.PROVIDER)], "0.3", CostSource.PROVIDER),
        ([(None, CostSource.UNKNOWN), ("0.1", CostSource.PROVIDER)], None, CostSource.UNKNOWN),
        ([("0", CostSource.NOT_BILLED), (None, CostSource.UNKNOWN)], None, CostSource.UNKNOWN),
    ],
)
def test_a_cost_is_known_where_every_attempts_is(
    attempts: list[tuple[str | None, CostSource]], cost: str | None, source: CostSource
) -> None:
    booked = [entry(cost=None if each is None else Decimal(each), cost_source=origin) for each, origin in attempts]
    total = booking.total_usage(booked)
    assert (total.cost, total.cost_source) == (None if cost is None else Decimal(cost), source)


def test_money_is_added_exactly() -> None:
    total = booking.total_usage([entry(cost=Decimal("0.1")) for _ in range(3)])
    assert total.cost == Decimal("0.3")


@given(entries)
def test_an_attempt_is_told_as_it_was_booked(booked: LedgerEntry) -> None:
    told = booking.attempt_of(booked)
    assert told.number == booked.attempt
    for each in (*fields(Attempt), *fields(TokenUsage)):
        if each.name not in ("number", "usage"):
            source = told.usage if each in fields(TokenUsage) else told
            assert getattr(source, each.name) == getattr(booked, each.name), each.name
    if booked.attempt == 1:
        assert told.usage == booking.total_usage([booked])


def test_booking_changes_no_entry_in_place() -> None:
    note = opening()
    before = replace(note)
    whole = ProviderCompletion("hi")
    booking.succeeded(note, whole, prices=NO_RULES, most_output=None, latency_ms=1, first_token_ms=None)
    assert note == before
