"""Spans as they are made, in the SDK's own exporter in memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_trace_id

from gateway.tracing.otel import OpenTelemetry
from gateway.tracing.port import NoTracing, trace_id_of
from persistence.records import Outcome
from tests.persistence.entries import entry

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
