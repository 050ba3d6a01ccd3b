"""Debian's Prometheus, Alertmanager and their tools for tests, with the deployment's own configuration, on free ports.

Debian builds Prometheus without Kubernetes' discovery. Pods are told by files instead, with the labels that Kubernetes'
discovery gives them: all that the configuration makes of these is the real thing."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml

from .missing import missing
from .ports import free_port

CONFIGURATION = Path(__file__).parents[2] / "k8s" / "observability"
RULES = CONFIGURATION / "prometheus" / "rules"
REDIS_EXPORTER = "redis-exporter.ai-middleware.svc:9121"
START_S = 60.0
PACKAGES = {
    "promtool": "prometheus",
    "amtool": "prometheus-alertmanager",
}
"""Of Debian, where they have another name than the program."""


class NoPrometheusError(Exception):
    """It can't be started here. The text says what to install."""


@dataclass(frozen=True)
class Pod:
    """A container's port as Kubernetes' discovery tells of it; `app` and `component` are the labels
    `app.kubernetes.io/name` and `/component`."""

    name: str
    app: str
    address: str
    port_name: str
    component: str = ""
    namespace: str = "ai-middleware"
    phase: str = "Running"

    def target(self) -> dict[str, Any]:
        labels = {
            "namespace": self.namespace,
            "pod_name": self.name,
            "pod_phase": self.phase,
            "pod_container_port_name": self.port_name,
            "pod_label_app_kubernetes_io_name": self.app,
            "pod_label_app_kubernetes_io_component": self.component,
        }
        return {
            "targets": [self.address],
            "labels": {f"__meta_kubernetes_{name}": told for name, told in labels.items()},
        }


@dataclass(frozen=True)
class Prometheus:
    url: str
    folder: Path

    def query(self, expression: str) -> Sequence[dict[str, Any]]:
        """The series of an instant vector."""
        answer = httpx.post(f"{self.url}/api/v1/query", data={"query": expression}, timeout=60).json()
        assert answer["status"] == "success", answer
        found: Sequence[dict[str, Any]] = answer["data"]["result"]
        return found

    def series(self, selector: str) -> Sequence[Mapping[str, str]]:
        answer = httpx.get(f"{self.url}/api/v1/series", params={"match[]": selector}, timeout=60).json()
        assert answer["status"] == "success", answer
        found: Sequence[Mapping[str, str]] = answer["data"]
        return found

    def targets(self) -> Sequence[dict[str, Any]]:
        found: Sequence[dict[str, Any]] = httpx.get(f"{self.url}/api/v1/targets", timeout=60).json()["data"][
            "activeTargets"
        ]
        return found


@contextmanager
def running_prometheus(
    folder: Path, pods: Sequence[Pod], *, node: str = "", redis_exporter: str = "", interval: str = "2s"
) -> Iterator[Prometheus]:
    """`node`: the address that stands for a kubelet; `redis_exporter`: for that exporter's Service."""
    binary = found("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    configuration = adapted(folder, pods, node=node, redis_exporter=redis_exporter, interval=interval)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=1d",
        "--rules.alert.resend-delay=5s",  # the first alert may come before Alertmanager is found
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder / "prometheus.log", f"{url}/-/ready"):
        yield Prometheus(url, folder)


@contextmanager
def running_alertmanager(folder: Path) -> Iterator[str]:
    """Its address. It has the deployment's routes and inhibitions; its receivers tell nobody."""
    binary = found("prometheus-alertmanager")
    folder.mkdir(parents=True, exist_ok=True)
    configuration = yaml.safe_load((CONFIGURATION / "alertmanager" / "alertmanager.yml").read_text())
    configuration["receivers"] = [{"name": each["name"]} for each in configuration["receivers"]]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = [
        binary,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder / "alertmanager.log", f"{url}/-/ready"):
        yield url


def adapted(
    folder: Path, pods: Sequence[Pod], *, node: str = "", redis_exporter: str = "", interval: str = "2s"
) -> dict[str, Any]:
    """The deployment's configuration with files in the place of Kubernetes' discovery, and plain HTTP to kubelets."""
    for namespace in {"ai-middleware", "monitoring", "cert-manager"}:
        told = [pod.target() for pod in pods if pod.namespace == namespace]
        (folder / f"pods-{namespace}.json").write_bytes(orjson.dumps(told))
    nodes = [{"targets": [node], "labels": {"__meta_kubernetes_node_name": "node"}}] if node else []
    (folder / "nodes.json").write_bytes(orjson.dumps(nodes))
    text = (CONFIGURATION / "prometheus" / "prometheus.yml").read_text()
    configuration: dict[str, Any] = yaml.safe_load(text.replace(REDIS_EXPORTER, redis_exporter or REDIS_EXPORTER))
    configuration["global"] |= {
        "scrape_interval": interval,
        "evaluation_interval": interval,
        "scrape_timeout": interval,
    }
    configuration["rule_files"] = [str(RULES / "*.yml")]
    for each in [*configuration["scrape_configs"], *configuration["alerting"]["alertmanagers"]]:
        files = [str(folder / name) for told in each.pop("kubernetes_sd_configs") for name in _files(told)]
        each["file_sd_configs"] = [{"files": files}]
        if each.pop("scheme", None) == "https":
            del each["authorization"], each["tls_config"]
    return configuration


def _files(discovery: Mapping[str, Any]) -> Sequence[str]:
    if discovery["role"] == "node":
        return ["nodes.json"]
    return [f"pods-{namespace}.json" for namespace in discovery["namespaces"]["names"]]


def found(binary: str) -> str:
    """Where it is. Raises NoPrometheusError."""
    where = shutil.which(binary)
    if where is None:
        raise NoPrometheusError(f"there is no {binary}: apt-get install {PACKAGES.get(binary, binary)}")
    return where


def found_or_skip(binary: str) -> str:
    try:
        return found(binary)
    except NoPrometheusError as error:
        missing(error)


@contextmanager
def _running(command: Sequence[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        until = time.monotonic() + START_S
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() > until:
                raise NoPrometheusError(f"{command[0]} did not start: {log.read_text()[-1000:]}")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.TransportError:
        return False
