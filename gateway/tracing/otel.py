"""OpenTelemetry: spans and metrics by the semantic conventions for GraphQL, generative AI and messaging.

https://opentelemetry.io/docs/specs/semconv/gen-ai/, …/graphql/graphql-spans/ and …/messaging/messaging-spans/. The SDK
takes its own configuration from the standard OTEL_* variables.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from persistence.batch_records import Batch
from persistence.records import LedgerEntry, Outcome
from providers.errors import ProviderError
from resolvers.observing import Observer, Unobserved
from resolvers.tracing import ONE_TRACE_AT_MOST, VendorStep
from resolvers.types import Target

from .otel_metrics import PROVIDERS, GenAIMetrics
from .port import in_logs

NAME = "ai-middleware"
CLOSE_S = 5.0
_PROPAGATOR = TraceContextTextMapPropagator()
_MS = 1_000_000  # in nanoseconds


class OpenTelemetry:
    """Implements `Tracing`. `metrics` is None where none are exported."""

    def __init__(self, spans: TracerProvider, metrics: MeterProvider | None) -> None:
        self._provider = spans
        self._metrics = metrics
        self._tracer = spans.get_tracer(NAME, version(NAME))
        told: list[Observer] = [SpansOfAttempts(self._tracer)]
        if metrics is not None:
            told.append(GenAIMetrics(metrics.get_meter(NAME, version(NAME))))
        self.observers = tuple(told)

    def current(self) -> str | None:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        return carrier.get("traceparent")

    @contextmanager
    def operation(self, traceparent: str | None) -> Iterator[None]:
        """Its name comes with `SpansOfAttempts.operated`."""
        caller = _remote(traceparent)
        parent = contexts.Context() if caller is None else trace.set_span_in_context(trace.NonRecordingSpan(caller))
        with self._span("GraphQL", SpanKind.SERVER, parent):
            yield

    @contextmanager
    def committing(self, origins: Sequence[str | None]) -> Iterator[None]:
        with self._following("ledger commit", SpanKind.PRODUCER, origins) as span:
            span.set_attribute("ledger.entries", len(origins))
            yield

    @contextmanager
    def working(self, kind: str, origins: Sequence[str]) -> Iterator[None]:
        with self._following(f"process {kind}", SpanKind.CONSUMER, origins) as span:
            span.set_attribute("messaging.operation.type", "process")
            span.set_attribute("messaging.batch.message_count", len(origins))
            yield

    @contextmanager
    def sending(self, kind: str, batch: Batch, count: int) -> Iterator[str | None]:
        with self._of_batch(f"send {kind}", SpanKind.PRODUCER, batch) as span:
            span.set_attribute("messaging.operation.type", "send")
            span.set_attribute("messaging.batch.message_count", count)
            yield self.current()

    @contextmanager
    def at_vendor(self, step: VendorStep, batch: Batch, target: Target) -> Iterator[None]:
        with self._of_batch(f"batch {step.value} {target.model}", SpanKind.CLIENT, batch) as span:
            span.set_attribute("gen_ai.operation.name", f"batch_{step.value}")
            span.set_attribute("gen_ai.provider.name", PROVIDERS.get(target.provider, target.provider))
            span.set_attribute("gen_ai.request.model", target.model)
            try:
                yield
            except ProviderError as error:
                span.set_attribute("error.type", error.code)
                raise

    async def close(self) -> None:
        """A collector that is away holds the end up for CLOSE_S at most, which no thread outlives the process for."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def end() -> None:
            self._provider.shutdown()
            if self._metrics is not None:
                self._metrics.shutdown(CLOSE_S * 1000)
            with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=end, name="otel-end", daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await ended.wait()

    @contextmanager
    def _of_batch(self, name: str, kind: SpanKind, batch: Batch) -> Iterator[Span]:
        apart = batch.counts.total > ONE_TRACE_AT_MOST
        with self._following(name, kind, [batch.submitter.trace], apart=apart) as span:
            span.set_attribute("ai_middleware.batch.id", batch.id)
            span.set_attribute("ai_middleware.organisation", batch.organisation)
            yield span

    @contextmanager
    def _following(
        self, name: str, kind: SpanKind, origins: Sequence[str | None], *, apart: bool = False
    ) -> Iterator[Span]:
        """Within the one trace that it comes of; of several, or `apart`, in one of its own that names them."""
        found = {each: context for each in origins if each is not None and (context := _remote(each)) is not None}
        parent, links = contexts.Context(), [Link(each) for each in found.values()]
        if len(links) == 1 and not apart:
            parent, links = trace.set_span_in_context(trace.NonRecordingSpan(links[0].context)), []
        with self._span(name, kind, parent, links) as span:
            yield span

    @contextmanager
    def _span(self, name: str, kind: SpanKind, parent: contexts.Context, links: Sequence[Link] = ()) -> Iterator[Span]:
        """An error is told by its class: what else it says may be anybody's text."""
        with (
            self._tracer.start_as_current_span(
                name, parent, kind, links=links, record_exception=False, set_status_on_exception=False
            ) as span,
            in_logs(trace.format_trace_id(span.get_span_context().trace_id)),
        ):
            try:
                yield span
            except Exception as error:  # whatever it is, the span says that it failed
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise


class SpansOfAttempts(Unobserved):
    """One span for each call to a vendor, made as it ends: its parent is the operation that runs. And the operation's
    own name, which is known when it has run."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def attempted(self, entry: LedgerEntry, operation: str) -> None:
        if entry.outcome is Outcome.ABANDONED:  # its trace died with its process
            return
        now = time.time_ns()
        self._tell(entry, operation, now - entry.latency_ms * _MS, now)

    def _tell(self, entry: LedgerEntry, operation: str, start: int, end: int) -> None:
        span = self._tracer.start_span(
            f"{operation} {entry.model}",
            kind=SpanKind.CLIENT,
            start_time=start,
            attributes=_attributes(entry, operation),
        )
        if entry.error_code is not None:
            span.set_status(Status(StatusCode.ERROR, entry.error_code))
        span.end(end)

    def collected(self, entry: LedgerEntry, batch: Batch) -> None:
        """From when it was sent until its answer was had."""
        sent = int(entry.time.timestamp() * 1_000) * _MS
        self._tell(entry, "chat", sent, time.time_ns())

    def operated(self, kind: str, name: str | None, seconds: float, error_codes: Sequence[str] | None) -> None:
        span = trace.get_current_span()
        span.update_name(f"{kind} {name}" if name else kind)
        span.set_attribute("graphql.operation.type", kind)
        if name:
            span.set_attribute("graphql.operation.name", name)
        for code in (error_codes or ())[:1]:
            self.refused(code)

    def refused(self, error_code: str) -> None:
        span = trace.get_current_span()
        span.set_attribute("error.type", error_code)
        span.set_status(Status(StatusCode.ERROR, error_code))


def _attributes(entry: LedgerEntry, operation: str) -> Mapping[str, AttributeValue]:
    """No text of anybody's is among them."""
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": PROVIDERS.get(entry.provider, entry.provider),
        "gen_ai.request.model": entry.model,
        "gen_ai.request.stream": entry.streamed,
        "gen_ai.response.finish_reasons": None if entry.finish_reason is None else [entry.finish_reason],
        "gen_ai.response.time_to_first_chunk": _seconds(entry.time_to_first_token_ms),
        "gen_ai.usage.input_tokens": entry.input_tokens,
        "gen_ai.usage.output_tokens": entry.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": entry.cached_input_tokens or None,
        "gen_ai.usage.cache_creation.input_tokens": entry.cache_write_tokens or None,
        "gen_ai.usage.reasoning.output_tokens": entry.reasoning_tokens or None,
        "error.type": entry.error_code,
        "ai_middleware.completion.id": entry.completion_id,
        "ai_middleware.attempt": entry.attempt,
        "ai_middleware.organisation": entry.organisation,
        "ai_middleware.cost_usd": None if entry.cost is None else float(entry.cost),
    }
    return {name: value for name, value in found.items() if value is not None}


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _remote(traceparent: str | None) -> SpanContext | None:
    """None where it is none."""
    if traceparent is None:
        return None
    found = _PROPAGATOR.extract({"traceparent": traceparent}, contexts.Context())
    context = trace.get_current_span(found).get_span_context()
    return context if context.is_valid else None
