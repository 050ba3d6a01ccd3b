"""What is told of the process, and to whom."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from .source import Source


class ObservabilitySettings(Source):
    """Logs, OpenTelemetry and Atatus. Metrics for Prometheus need no setting."""

    LOG_CONTENT: bool = Field(
        default=False,
        description="Logs with each completion what the model was asked and what it answered. Whoever reads the logs "
        "reads that.",
    )
    OTEL_EXPORTER_OTLP_ENDPOINT: str | None = Field(
        default=None,
        description="Sends traces and metrics to this OpenTelemetry collector, such as `http://localhost:4318`, by "
        "OTLP over HTTP; the extra `otel` is needed. The other standard `OTEL_*` variables say the rest "
        "(`OTEL_SERVICE_NAME`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, …).",
    )
    OTEL_EXPORTER_OTLP_PROTOCOL: Literal["http/protobuf"] = Field(
        default="http/protobuf", description="OTLP over gRPC is not spoken here."
    )
    OTEL_METRICS_EXPORTER: Literal["otlp", "none"] = Field(
        default="otlp", description="`none` sends traces alone, where Prometheus has the metrics."
    )
    OTEL_SDK_DISABLED: bool = Field(default=False, description="Turns OpenTelemetry off, whatever else is set.")
    ATATUS_LICENSE_KEY: SecretStr | None = Field(
        default=None,
        description="Sends operations, and the calls to vendors within them, to Atatus; the extra `atatus` is needed. "
        "Of the agent's own variables `ATATUS_APP_NAME` and `ATATUS_NOTIFY_HOST` go with it.",
    )

    @model_validator(mode="after")
    def _check_tracing(self) -> Self:
        if self.ATATUS_LICENSE_KEY is not None and self.traces_by_otel:
            raise ValueError(
                "ATATUS_LICENSE_KEY: is set, and OTEL_EXPORTER_OTLP_ENDPOINT is too: a process traces for one of them"
            )
        return self

    @property
    def traces_by_otel(self) -> bool:
        return self.OTEL_EXPORTER_OTLP_ENDPOINT is not None and not self.OTEL_SDK_DISABLED
