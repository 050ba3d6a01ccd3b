"""Spans as they are made, in the SDK's own exporter in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, format_trace_id

from gateway.tracing.otel import OpenTelemetry
from gateway.tracing.port import NoTracing, trace_id_of
from persistence.batch_records import Counts, Submitter
from persistence.records import Outcome
from providers.errors import ProviderUnavailableError
from resolvers.tracing import ONE_TRACE_AT_MOST, VendorStep
from resolvers.types import Target
from tests.persistence.batches import batch as a_batch
from tests.persistence.entries import entry

TARGET = Target("openai", "gpt-4o-mini")
TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"


def traceparent(trace: str, flags: str = "01") -> str:
    return f"00-{trace}-b7ad6b7169203331-{flags}"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter: InMemorySpanExporter) -> OpenTelemetry:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OpenTelemetry(provider, None)


def traces(spans: Sequence[ReadableSpan]) -> list[str]:
    return [format_trace_id(span.get_span_context().trace_id) for span in spans]


def test_a_call_is_a_span_of_the_operation(tracing: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    (observer,) = tracing.observers
    with tracing.operation(traceparent(TRACE)):
        observer.attempted(entry(latency_ms=250, outcome=Outcome.FAILED, error_code="PROVIDER_TIMEOUT"), "chat")
        observer.operated("mutation", "Ask", 0.3, ["PROVIDER_TIMEOUT"])
        current = tracing.current()
    call, operation = exporter.get_finished_spans()
    assert traces([call, operation]) == [TRACE, TRACE]
    assert current is not None
    assert current.startswith(f"00-{TRACE}-")
    assert (call.name, operation.name) == ("chat gpt-4.1", "mutation Ask")
    assert call.start_time is not None
    assert call.end_time == call.start_time + 250_000_000
    assert call.attributes is not None
    assert call.attributes["error.type"] == "PROVIDER_TIMEOUT"
    assert (call.status.is_ok, operation.status.is_ok) == (False, False)
    assert tracing.current() is None


def test_a_commit_of_several_traces_is_one_of_its_own(tracing: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    with tracing.committing([traceparent(TRACE), None, traceparent(OTHER), traceparent(TRACE), "nonsense"]):
        pass
    (commit,) = exporter.get_finished_spans()
    assert commit.parent is None
    assert {format_trace_id(link.context.trace_id) for link in commit.links} == {TRACE, OTHER}


def test_a_commit_of_one_trace_is_in_it(tracing: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    with tracing.committing([traceparent(TRACE), traceparent(TRACE), None]):
        pass
    (commit,) = exporter.get_finished_spans()
    assert traces([commit]) == [TRACE]
    assert commit.links == ()


def test_what_a_batch_comes_to_is_in_its_submission_s_trace(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    """As long as it is small: in a larger one each step, with what comes of it, has a trace of its own."""
    for waiting, joined in ((ONE_TRACE_AT_MOST, True), (ONE_TRACE_AT_MOST + 1, False)):
        batch = a_batch(counts=Counts(waiting=waiting), submitter=Submitter("key_1", trace=traceparent(TRACE)))
        with tracing.sending("batch-item", batch, 3) as ticket:
            pass
        assert ticket is not None
        with tracing.working("batch-item", [ticket]), tracing.at_vendor(VendorStep.POLL, batch, TARGET):
            pass
        sent, polled, worked = exporter.get_finished_spans()
        exporter.clear()
        assert traces([worked]) == traces([sent])
        assert len({*traces([sent, polled]), TRACE}) == (1 if joined else 3)
        assert (sent.kind, worked.kind, polled.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT)
        links = [format_trace_id(link.context.trace_id) for span in (sent, polled) for link in span.links]
        assert links == ([] if joined else [TRACE, TRACE])
        assert sent.attributes is not None
        assert (sent.attributes["messaging.batch.message_count"], sent.attributes["ai_middleware.batch.id"]) == (
            3,
            batch.id,
        )


def test_what_a_vendor_s_batch_api_refuses_has_its_code(tracing: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    refusal = ProviderUnavailableError("a secret", provider="openai")
    with pytest.raises(ProviderUnavailableError), tracing.at_vendor(VendorStep.UPLOAD, a_batch(), TARGET):
        raise refusal
    (upload,) = exporter.get_finished_spans()
    assert upload.attributes is not None
    assert (upload.name, upload.attributes["error.type"]) == ("batch upload gpt-4o-mini", "PROVIDER_UNAVAILABLE")
    assert not upload.status.is_ok
    assert "a secret" not in upload.to_json()


def test_an_answer_that_was_collected_is_a_span_since_it_was_asked(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    asked_at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    with tracing.at_vendor(VendorStep.COLLECT, a_batch(), TARGET):
        tracing.observers[0].collected(entry(time=asked_at), a_batch())
    call, collect = exporter.get_finished_spans()
    assert call.parent is not None
    assert collect.context is not None
    assert (call.parent.span_id, call.start_time) == (collect.context.span_id, int(asked_at.timestamp()) * 10**9)
    assert call.end_time is not None
    assert call.end_time > int(asked_at.timestamp() + 7000) * 10**9


def test_a_commit_does_not_belong_to_what_runs_beside_it(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter
) -> None:
    with tracing.operation(traceparent(TRACE)), tracing.committing([None]):
        pass
    commit, _ = exporter.get_finished_spans()
    assert traces([commit]) != [TRACE]


def test_what_a_caller_does_not_sample_is_not_recorded(tracing: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    with tracing.operation(traceparent(TRACE, "00")):
        tracing.observers[0].attempted(entry(), "chat")
    assert exporter.get_finished_spans() == ()


def test_what_a_dead_process_left_has_no_span(tracing: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    tracing.observers[0].attempted(entry(outcome=Outcome.ABANDONED), "chat")
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("given", [None, "", "nonsense", traceparent("0" * 32), traceparent(TRACE)[:-1]])
def test_a_bad_traceparent_begins_a_new_trace(
    tracing: OpenTelemetry, exporter: InMemorySpanExporter, given: str | None
) -> None:
    with tracing.operation(given):
        pass
    (operation,) = exporter.get_finished_spans()
    assert operation.parent is None


def test_an_error_in_an_operation_keeps_its_text(tracing: OpenTelemetry, exporter: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="a secret"), tracing.operation(None):
        raise ValueError("a secret")
    (operation,) = exporter.get_finished_spans()
    assert "a secret" not in operation.to_json()


def test_untraced_what_is_done_for_a_caller_later_has_his_trace_in_its_logs() -> None:
    tracing = NoTracing()
    with tracing.operation(traceparent(TRACE)):
        batch = a_batch(submitter=Submitter("key_1", trace=tracing.current()))
    assert tracing.current() is None
    with tracing.sending("batch-item", batch, 1) as ticket:
        assert ticket == traceparent(TRACE)
    for later in (tracing.working("batch-item", [ticket, ticket]), tracing.at_vendor(VendorStep.POLL, batch, TARGET)):
        with later:
            assert structlog.contextvars.get_contextvars()["trace_id"] == TRACE
    for nothing in (tracing.working("ledger", [ticket, traceparent(OTHER)]), tracing.working("ledger", ["nonsense"])):
        with nothing:
            assert "trace_id" not in structlog.contextvars.get_contextvars()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (traceparent(TRACE), TRACE),
        (traceparent(TRACE.upper()), None),
        (traceparent("٣" * 32), None),
        (traceparent(TRACE) + "-more", None),
        ("", None),
    ],
)
def test_the_id_of_a_callers_trace(given: str, found: str | None) -> None:
    assert trace_id_of(given) == found
    with NoTracing().operation(given):
        assert structlog.contextvars.get_contextvars().get("trace_id") == found
