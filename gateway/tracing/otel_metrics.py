"""The metrics of OpenTelemetry's conventions for generative AI; all others are Prometheus' to scrape.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

from opentelemetry.metrics import Meter
from opentelemetry.util.types import AttributeValue

from gateway.metrics.labels import ModelLabels
from persistence.batch_records import Batch
from persistence.records import LedgerEntry, Outcome
from resolvers.observing import Unobserved

PROVIDERS = {"google": "gcp.gemini", "azure": "azure.ai.openai", "mistral": "mistral_ai"}
"""The conventions' names where they are not ours."""

# The buckets that the conventions name.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)


class GenAIMetrics(Unobserved):
    """One operation is one call to a vendor."""

    def __init__(self, meter: Meter) -> None:
        self._models = ModelLabels()
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._first = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=_FIRST,
        )

    def attempted(self, entry: LedgerEntry, operation: str) -> None:
        attributes = self._counted(entry, operation)
        if entry.time_to_first_token_ms is not None:
            self._first.record(entry.time_to_first_token_ms / 1000, attributes)
        if entry.error_code is not None:
            attributes["error.type"] = entry.error_code
        self._durations.record(entry.latency_ms / 1000, attributes)

    def collected(self, entry: LedgerEntry, batch: Batch) -> None:
        self._counted(entry, "chat")

    def _counted(self, entry: LedgerEntry, operation: str) -> dict[str, AttributeValue]:
        if entry.outcome is Outcome.SUCCEEDED:
            self._models.answered(entry.provider, entry.model)
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDERS.get(entry.provider, entry.provider),
            "gen_ai.request.model": self._models.of(entry.provider, entry.model),
        }
        self._tokens.record(entry.input_tokens, {**attributes, "gen_ai.token.type": "input"})
        self._tokens.record(entry.output_tokens, {**attributes, "gen_ai.token.type": "output"})
        return attributes
