"""An OpenTelemetry collector, as far as OTLP over HTTP goes: it keeps what it is sent.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class SentSpan:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    links: tuple[str, ...]
    attributes: dict[str, Any]
    service: str


@dataclass
class HTTPSink:
    """What was posted, to whatever path."""

    port: int
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str) -> list[bytes]:
        return [each.body for each in self.received if each.path.partition("?")[0] == path]

    def spans(self) -> Sequence[SentSpan]:
        found: list[SentSpan] = []
        for body in self.bodies("/v1/traces"):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = _plain(resource.resource.attributes)["service.name"]
                found += (_span(span, service) for scope in resource.scope_spans for span in scope.spans)
        return found

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """By name, the attributes of each point that was told."""
        found: dict[str, list[dict[str, Any]]] = {}
        for body in self.bodies("/v1/metrics"):
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                    points = [_plain(point.attributes) for point in metric.histogram.data_points]
                    found.setdefault(metric.name, []).extend(points)
        return found


@contextmanager
def running_sink() -> Iterator[HTTPSink]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    sink = HTTPSink(server.server_address[1])
    server.sink = sink  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.sink.received.append(Received(self.path, headers, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _span(span: Any, service: str) -> SentSpan:
    return SentSpan(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        failed=span.status.code == 2,
        links=tuple(link.trace_id.hex() for link in span.links),
        attributes=_plain(span.attributes),
        service=service,
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
