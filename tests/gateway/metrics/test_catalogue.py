"""The catalogue of metrics, and the page that is written from it."""

from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry

from gateway.metrics.catalogue import ROWS, SECTIONS, WORKER_ROWS, Kind, Row
from gateway.metrics.instruments import Instruments
from gateway.metrics_table import PAGE, metrics_page

UNITS = {Kind.HISTOGRAM: re.compile(r"_seconds$"), Kind.COUNTER: re.compile(r"_total$")}


def test_the_page_is_written_from_the_code() -> None:
    assert PAGE.read_text() == metrics_page(), "make schema"


def test_names_are_there_once() -> None:
    assert len(ROWS) == sum(len(section.rows) for section in SECTIONS)
    assert WORKER_ROWS.items() <= ROWS.items()


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_names_follow_prometheus(row: Row) -> None:
    """https://prometheus.io/docs/practices/naming/"""
    assert re.fullmatch(r"[a-z][a-z0-9_]+", row.name)
    if row.kind in UNITS:
        assert UNITS[row.kind].search(row.name)
    assert not row.name.endswith(("_count", "_sum", "_bucket")), "those are parts of a histogram"
    assert bool(row.buckets) is (row.kind is Kind.HISTOGRAM)
    assert list(row.buckets) == sorted(set(row.buckets))
    assert row.text.endswith(".")
    assert "organisation" not in row.labels


def test_two_processes_of_instruments_do_not_meet() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    Instruments(ROWS, first).gauge("websocket_connections").set(3)
    Instruments(ROWS, second)
    assert first.get_sample_value("websocket_connections") == 3
    assert second.get_sample_value("websocket_connections") == 0
