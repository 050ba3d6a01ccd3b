"""The rows of the catalogue as Prometheus' instruments, each with its children at hand by the values of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from .catalogue import Kind, Row

prometheus_client.disable_created_metrics()  # a second series for each, which nobody asks for

_Instrument = TypeVar("_Instrument", bound=MetricWrapperBase)


class Series(Generic[_Instrument]):
    """One instrument's children: `series["openai", "gpt-4o"]`. Finding a child again is a look into a dictionary."""

    __slots__ = ("_children", "_instrument")

    def __init__(self, instrument: _Instrument) -> None:
        self._instrument = instrument
        self._children: dict[tuple[str, ...], _Instrument] = {}

    def __getitem__(self, values: tuple[str, ...]) -> _Instrument:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._instrument.labels(*values)
        return child

    def begin(self, *values: tuple[str, ...]) -> None:
        """At 0, so that the first event is seen as a rise, and panels show something before it."""
        for each in values:
            self[each]


class Instruments:
    """By name; the plural is of those that have labels."""

    def __init__(self, rows: Mapping[str, Row], registry: CollectorRegistry) -> None:
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        for row in rows.values():
            if row.kind is Kind.COUNTER:
                self._counters[row.name] = Counter(row.name, row.text, row.labels, registry=registry)
            elif row.kind is Kind.GAUGE:
                self._gauges[row.name] = Gauge(
                    row.name, row.text, row.labels, registry=registry, multiprocess_mode=row.merge.value
                )
            else:
                self._histograms[row.name] = Histogram(
                    row.name, row.text, row.labels, registry=registry, buckets=row.buckets
                )

    def counter(self, name: str) -> Counter:
        return self._counters[name]

    def gauge(self, name: str) -> Gauge:
        return self._gauges[name]

    def histogram(self, name: str) -> Histogram:
        return self._histograms[name]

    def counters(self, name: str) -> Series[Counter]:
        return Series(self._counters[name])

    def gauges(self, name: str) -> Series[Gauge]:
        return Series(self._gauges[name])

    def histograms(self, name: str) -> Series[Histogram]:
        return Series(self._histograms[name])
