"""What is watched is what production runs: the labels and ports by which Prometheus finds it, the names by which
Fluent Bit does, and the policies that let the exporters in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from typing import Any

import yaml

from tests.k8s.rendered import Manifest, containers, objects, pods

from .test_manifests import kustomized
from .written import FOLDER

PRODUCTION = "overlays/production"
NAME = "app.kubernetes.io/name"
JOBS: Mapping[str, Mapping[str, Any]] = {
    job["job_name"]: job
    for job in yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
}


@cache
def with_exporters() -> Sequence[Manifest]:
    folder = FOLDER / f".production-{os.getpid()}"  # kustomize reads only what is near
    folder.mkdir()
    try:
        told = {"resources": ["../../overlays/production"], "components": ["../exporters"]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
        return kustomized(folder)
    finally:
        shutil.rmtree(folder)


def ports(app: str) -> Iterator[tuple[str, str, int]]:
    """Component, name and number of each port of production's pods of this name."""
    for _, template in pods(PRODUCTION):
        labels = template["metadata"]["labels"]
        if labels[NAME] == app:
            for container in template["spec"]["containers"]:
                for port in container.get("ports", ()):
                    yield labels["app.kubernetes.io/component"], port.get("name", ""), port["containerPort"]


def kept(job: str, label: str) -> Sequence[str]:
    """Values of a label of Kubernetes' discovery that a job keeps."""
    return [
        value
        for rule in JOBS[job]["relabel_configs"]
        if rule.get("action") == "keep" and rule["source_labels"] == [f"__meta_kubernetes_{label}"]
        for value in rule["regex"].split("|")
    ]


def test_prometheus_finds_servers_and_workers() -> None:
    (app,) = kept("ai-middleware", "pod_label_app_kubernetes_io_name")
    (port,) = kept("ai-middleware", "pod_container_port_name")
    assert {component for component, name, _ in ports(app) if name == port} == {"api", "worker"}


def test_prometheus_finds_redis_and_rabbitmq() -> None:
    assert kept("redis-exporter", "pod_label_app_kubernetes_io_name") == ["redis"]
    assert ("cache", "redis", 6379) in ports("redis")
    assert "rabbitmq" in kept("exporters", "pod_label_app_kubernetes_io_name")
    assert ("queue", "metrics", 15692) in ports("rabbitmq")


def test_exporters_are_found_by_their_names_and_ports() -> None:
    names = {*kept("exporters", "pod_label_app_kubernetes_io_name"), "rabbitmq"}
    deployments = {each["metadata"]["name"]: each for each in with_exporters() if each["kind"] == "Deployment"}
    for name in names - {"rabbitmq"}:
        template = deployments[name]["spec"]["template"]
        assert template["metadata"]["labels"][NAME] == name
        assert [port["name"] for port in template["spec"]["containers"][0]["ports"]] == ["metrics"]


def test_exporters_reach_their_databases() -> None:
    """MongoDB's gets its user, and no other is lost; each database lets its exporter in, at the port that it has."""
    before = objects(PRODUCTION, "MongoDBCommunity")["ai-middleware-mongodb"]["spec"]["users"]
    (mongo,) = (each for each in with_exporters() if each["kind"] == "MongoDBCommunity")
    assert mongo["spec"]["users"][:-1] == before
    assert mongo["spec"]["users"][-1]["name"] == "exporter"
    policies = {each["metadata"]["name"]: each["spec"] for each in with_exporters() if each["kind"] == "NetworkPolicy"}
    labels = {template["metadata"]["labels"][NAME] for _, template in pods(PRODUCTION)}
    for database, exporter in (("timescaledb", "postgres"), ("mongodb", "mongodb"), ("redis", "redis")):
        policy = policies[f"{database}-from-exporter"]
        assert policy["podSelector"]["matchLabels"][NAME] in labels
        (let_in,) = policy["ingress"]
        assert let_in["from"] == [{"podSelector": {"matchLabels": {NAME: f"{exporter}-exporter"}}}]
        assert policies[f"{exporter}-exporter"]["egress"][0]["ports"] == let_in["ports"]


def test_fluent_bit_reads_our_containers_and_no_others() -> None:
    (reads,) = yaml.safe_load((FOLDER / "logs" / "fluent-bit.yaml").read_text())["pipeline"]["inputs"]
    paths = reads["path"].split(",")
    ours = {"api", "worker", "migrate"}
    names = {owner.rpartition("/")[2] for owner, _ in containers(PRODUCTION)}
    assert ours < names
    for name in names:
        file = f"/var/log/containers/pod-0_ai-middleware_{name}-{'0f' * 32}.log"
        assert any(fnmatch(file, path) for path in paths) == (name in ours), name
        assert not any(fnmatch(file.replace("_ai-middleware_", "_other_"), path) for path in paths)
