"""Where OpenTelemetry's spans and metrics go: to a collector by OTLP over HTTP, as the standard variables say.

https://opentelemetry.io/docs/languages/sdk-configuration/otlp-exporter/
"""

from __future__ import annotations

from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from .otel import NAME, OpenTelemetry


def exporting(*, metrics: bool) -> OpenTelemetry:
    """Addresses, headers, sampling and intervals are the SDK's to read; what is said there of this process wins."""
    ours = Resource.create({"service.name": NAME, "service.version": version(NAME)})
    resource = ours.merge(OTELResourceDetector().detect())
    spans = TracerProvider(resource=resource, shutdown_on_exit=False)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    if not metrics:
        return OpenTelemetry(spans, None)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    return OpenTelemetry(spans, MeterProvider([reader], resource, shutdown_on_exit=False))
