"""What rules and dashboards ask for is there: a real Prometheus with the deployment's configuration scrapes a real
server that is at work, and each query finds its metrics, its labels and data."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.e2e.processes import Server, running_server, running_vendor, server_environment
from tests.servers.prometheus import Pod, Prometheus, found_or_skip, running_prometheus
from tests.servers.redis import redis_or_skip

from .cluster import running_exporters
from .promql import filled, grouped_labels, measured, selectors
from .traffic import calls, limit
from .written import Query, alerted, panels, recorded

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Scene:
    server: Server
    prometheus: Prometheus


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Also there: a pod that has ended, one that is somebody else's, and another port of the server's own pod."""
    for binary in ("prometheus", "prometheus-redis-exporter", "prometheus-postgres-exporter"):
        found_or_skip(binary)
    redis_or_skip()
    folder = tmp_path_factory.mktemp("observed")
    files = folder / "files"
    files.mkdir()
    with running_vendor() as vendor, running_exporters() as (pods, kubelet, redis):
        environment = server_environment(folder / "server", vendor, OBJECT_STORE_URL=f"file://{files}")
        with running_server(environment) as server:
            address = f"127.0.0.1:{server.port}"
            pods += [
                Pod("ai-middleware-api-1", "ai-middleware", address, "internal", "api"),
                Pod("ai-middleware-api-1", "ai-middleware", "127.0.0.1:9", "http", "api"),
                Pod("ai-middleware-migrate-1", "ai-middleware", "127.0.0.1:9", "internal", "api", phase="Succeeded"),
                Pod("stranger-1", "stranger", "127.0.0.1:9", "internal", "api"),
            ]
            with running_prometheus(folder / "prometheus", pods, node=kubelet, redis_exporter=redis) as prometheus:
                yield at_work(Scene(server, prometheus))


def at_work(scene: Scene) -> Scene:
    """Its counters have risen from one scrape to another."""
    limit(scene.server)
    calls(scene.server)
    asked = 'sum(ai_requests_total{outcome="succeeded"})'
    until(lambda: bool(scene.prometheus.query(asked)))
    before = float(scene.prometheus.query(asked)[0]["value"][1])
    calls(scene.server)
    until(lambda: float(scene.prometheus.query(asked)[0]["value"][1]) > before)
    return scene


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it has not come to be"
        time.sleep(0.2)


def name(query: Query) -> str:
    return query.place


RECORDED, ALERTED, PANELS = list(recorded()), list(alerted()), list(panels())


@pytest.mark.parametrize("query", [*RECORDED, *ALERTED, *PANELS], ids=name)
def test_every_metric_and_label_is_there(scene: Scene, query: Query) -> None:
    """Each selector finds series, the labels that it names with such values among them; and what is grouped by is a
    label of some of them."""
    labels: set[str] = set()
    for selector in selectors(query.text):
        until(lambda asked=selector.text: bool(scene.prometheus.series(asked)))  # type: ignore[misc]
        for series in scene.prometheus.series(selector.text):
            labels |= series.keys()
    assert grouped_labels(query.text) <= labels


@pytest.mark.parametrize("query", [*RECORDED, *PANELS], ids=name)
def test_every_query_has_data(scene: Scene, query: Query) -> None:
    until(lambda: has_data(scene.prometheus, filled(query.text)))
    told = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
    assert told <= {label for series in scene.prometheus.query(filled(query.text)) for label in series["metric"]}


@pytest.mark.parametrize("query", ALERTED, ids=name)
def test_what_an_alert_looks_at_has_data(scene: Scene, query: Query) -> None:
    """That it fires is shown by the rules' own tests."""
    parts = measured(query.text)
    assert parts
    for part in parts:
        until(lambda asked=part: has_data(scene.prometheus, asked))  # type: ignore[misc]


def has_data(prometheus: Prometheus, expression: str) -> bool:
    return any(not math.isnan(float(each["value"][1])) for each in prometheus.query(expression))


def test_a_query_for_nothing_is_seen(scene: Scene) -> None:
    """The checks above can fail."""
    assert not scene.prometheus.series('ai_requests_total{outcome="succeded"}')
    assert not has_data(scene.prometheus, "rate(ai_request_total[1m])")
    assert measured("(a / b > 1 and sum(c) < 2) unless d") == ["a{} / b{}", "sum(c{})", "d{}"]
    assert grouped_labels("sum by (x, y) (rate(a[5m])) / max by (z) (b)") == {"x", "y", "z"}


def test_the_right_pods_are_scraped(scene: Scene) -> None:
    targets = scene.prometheus.targets()
    ours = [each for each in targets if each["labels"]["job"] == "ai-middleware"]
    assert [each["labels"] for each in ours] == [
        {
            "job": "ai-middleware",
            "namespace": "ai-middleware",
            "pod": "ai-middleware-api-1",
            "component": "api",
            "instance": f"127.0.0.1:{scene.server.port}",
        }
    ]
    assert {each["labels"]["job"] for each in targets} == {
        *("ai-middleware", "postgres-exporter", "redis-exporter", "mongodb-exporter", "rabbitmq"),
        *("kube-state-metrics", "kubelet", "cadvisor", "cert-manager"),
    }
    until(lambda: all(each["health"] == "up" for each in scene.prometheus.targets()))


def test_what_is_not_asked_for_is_not_kept(scene: Scene) -> None:
    assert not scene.prometheus.series("kubelet_running_pods")
    assert not scene.prometheus.series("container_start_time_seconds")
    assert not scene.prometheus.series('container_memory_working_set_bytes{namespace="other"}')
