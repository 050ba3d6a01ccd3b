"""What is counted of what an observer is told."""

from __future__ import annotations

from decimal import Decimal

import pytest
from prometheus_client import CollectorRegistry

from gateway.metrics.catalogue import ROWS
from gateway.metrics.instruments import Instruments
from gateway.metrics.observer import JobMetrics, ServerMetrics
from persistence.records import Outcome
from tests.persistence.batches import batch
from tests.persistence.entries import entry


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ServerMetrics:
    instruments = Instruments(ROWS, registry)
    return ServerMetrics(instruments, JobMetrics(instruments, []))


def test_what_a_vendors_batch_told_has_no_duration(metrics: ServerMetrics, registry: CollectorRegistry) -> None:
    openai = {"provider": "openai", "model": "gpt-4o-mini"}
    done = entry(**openai, input_tokens=30, cost=Decimal("0.25"), error_code=None)
    failed = entry(**openai, input_tokens=0, cost=Decimal(0), outcome=Outcome.FAILED, error_code="PROVIDER_UNAVAILABLE")
    for each in (done, failed):
        metrics.collected(each, batch())
    read = registry.get_sample_value
    assert read("ai_requests_total", {**openai, "outcome": "succeeded"}) == 1
    assert read("ai_requests_total", {**openai, "outcome": "failed"}) == 1
    assert read("ai_request_errors_total", {"provider": "openai", "code": "PROVIDER_UNAVAILABLE"}) == 1
    assert read("ai_attempts_total", {**openai, "outcome": "succeeded", "code": ""}) == 1
    assert read("ai_tokens_total", {**openai, "kind": "input"}) == 30
    assert read("ai_cost_usd_total", openai) == 0.25
    assert read("ai_attempt_duration_seconds_count", openai) is None


def test_operations_that_were_not_run_for_their_cost(metrics: ServerMetrics, registry: CollectorRegistry) -> None:
    for kind, code in (
        ("invalid", "QUERY_TOO_COMPLEX"),
        ("invalid", "RATE_LIMITED"),
        ("invalid", "RATE_LIMITED"),
        ("invalid", "BAD_USER_INPUT"),
        ("mutation", "RATE_LIMITED"),
    ):
        metrics.operated(kind, None, 0.0, [code])
    read = registry.get_sample_value
    assert read("graphql_cost_refusals_total", {"reason": "too_complex"}) == 1
    assert read("graphql_cost_refusals_total", {"reason": "throttled"}) == 2
