"""What `/metrics` of a real server tells, parsed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


@dataclass(frozen=True)
class Scrape:
    families: Mapping[str, Metric]

    def samples(self, name: str, /, **labels: str) -> Iterator[Sample]:
        """Those of this very name that have these labels, beside others."""
        for family in self.families.values():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    yield sample

    def value(self, name: str, /, **labels: str) -> float:
        """Their sum; 0 where there are none."""
        return sum(sample.value for sample in self.samples(name, **labels))

    def values_of(self, label: str, name: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples(name)}

    def series(self) -> int:
        return sum(len(family.samples) for family in self.families.values())


def scrape(port: int) -> Scrape:
    answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


def parsed(text: str) -> Scrape:
    return Scrape({family.name: family for family in text_string_to_metric_families(text)})
