"""On the way of a completion a series is a look into a dictionary."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from gateway.metrics.catalogue import ROWS
from gateway.metrics.instruments import Instruments


def test_a_child_is_bound_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client library takes a lock and makes strings of the labels each time it is asked."""
    asked: list[tuple[Any, ...]] = []
    labels = Counter.labels

    def noted(self: Counter, *values: Any) -> Counter:
        asked.append(values)
        return labels(self, *values)

    monkeypatch.setattr(Counter, "labels", noted)
    registry = CollectorRegistry()
    fallbacks = Instruments(ROWS, registry).counters("ai_fallbacks_total")
    names = ("openai", "groq", "PROVIDER_TIMEOUT")
    fallbacks.begin(names)
    for _ in range(3):
        fallbacks[names].inc()
    assert asked == [names]
    told = dict(zip(("from_provider", "to_provider", "code"), names, strict=True))
    assert registry.get_sample_value("ai_fallbacks_total", told) == 3
