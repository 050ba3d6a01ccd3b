"""What watches the application, as Kubernetes would take it: valid, restricted, reaching no more than it must."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.servers.missing import missing

from .written import FOLDER

Manifest = dict[str, Any]
KUBERNETES = ("1.30", "1.37")
EXPORTERS = "exporters"
STACK = "."
SECRETS = "make-secrets.sh"
GIVEN = ("REDIS_PASSWORD", "PAGERDUTY_ROUTING_KEY", "SLACK_WEBHOOK_URL", "HEARTBEAT_TOKEN", "ELASTICSEARCH_PASSWORD")


@cache
def rendered(name: str) -> Sequence[Manifest]:
    """The component within an overlay that has MongoDB, as production's does."""
    if shutil.which("kubectl") is None:
        missing("kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools/")
    if name == STACK:
        return kustomized(FOLDER)
    folder = FOLDER / f".with-exporters-{os.getpid()}"  # kustomize reads only what is near
    folder.mkdir()
    try:
        mongo = {
            "apiVersion": "mongodbcommunity.mongodb.com/v1",
            "kind": "MongoDBCommunity",
            "metadata": {"name": "ai-middleware-mongodb"},
            "spec": {"users": [{"name": "ai-middleware"}]},
        }
        (folder / "mongodb.yaml").write_text(yaml.safe_dump(mongo))
        told = {"namespace": "ai-middleware", "resources": ["mongodb.yaml"], "components": ["../exporters"]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
        return kustomized(folder)
    finally:
        shutil.rmtree(folder)


def kustomized(folder: Path) -> Sequence[Manifest]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def everything() -> Iterator[Manifest]:
    yield from rendered(STACK)
    yield from rendered(EXPORTERS)


def workloads() -> Iterator[Manifest]:
    return (each for each in everything() if "template" in each.get("spec", {}))


def containers() -> Iterator[tuple[str, Manifest, Manifest]]:
    """By the name of what makes it, its pod's specification beside it."""
    for each in workloads():
        pod = each["spec"]["template"]["spec"]
        for container in pod["containers"]:
            yield each["metadata"]["name"], pod, container


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(version: str) -> None:
    checked = [each for each in everything() if each["kind"] != "MongoDBCommunity"]
    for each in checked:
        kubernetes_validate.validate(each, version, strict=True)
    assert len(checked) > 30


def test_every_object_is_in_its_namespace() -> None:
    cluster = {"Namespace", "ClusterRole", "ClusterRoleBinding"}
    for each in everything():
        assert (each["kind"] in cluster) != ("namespace" in each["metadata"]), each["metadata"]["name"]
    assert {each["metadata"]["namespace"] for each in rendered(EXPORTERS)} == {"ai-middleware"}


def test_containers_are_restricted() -> None:
    """As the restricted level of Kubernetes' Pod Security Standards has it. Who reads the nodes' files is root and has
    their folders, and nothing else that others don't have."""
    seen = set()
    for name, pod, container in containers():
        seen.add(name)
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        paths = {volume["hostPath"]["path"] for volume in pod.get("volumes", ()) if "hostPath" in volume}
        if name == "fluent-bit":
            assert paths == {"/var/log", "/var/lib/fluent-bit"}
            assert {"name": "logs", "mountPath": "/var/log", "readOnly": True} in container["volumeMounts"]
        else:
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert paths == set()
    assert len(seen) == 8


def test_containers_have_bounds_probes_and_a_version() -> None:
    for name, _, container in containers():
        assert container["resources"].keys() == {"requests", "limits"}, name
        assert re.search(r":v?\d+\.\d+\.\d+$", container["image"]), name
        assert {"readinessProbe", "livenessProbe"} <= container.keys(), name


def test_only_who_asks_kubernetes_has_a_token() -> None:
    with_token = {name for name, pod, _ in containers() if pod["automountServiceAccountToken"]}
    assert with_token == {"prometheus", "kube-state-metrics"}
    rules = [rule for each in everything() if each["kind"] in ("Role", "ClusterRole") for rule in each["rules"]]
    assert {verb for rule in rules for verb in rule["verbs"]} <= {"get", "list", "watch"}
    assert {resource for rule in rules for resource in rule["resources"]} == {"pods", "nodes", "nodes/metrics"}


def test_no_secret_is_in_a_manifest_and_all_that_are_named_are_made() -> None:
    assert not [each for each in everything() if each["kind"] == "Secret"]
    named = set(re.findall(r"'secretName': '([^']+)'|'secretKeyRef': \{[^}]*'name': '([^']+)'", str(list(workloads()))))
    made = {each["metadata"]["name"] for each in secrets()}
    assert {name for pair in named for name in pair if name} == made


def secrets() -> Sequence[Manifest]:
    given = {name: f"value-of-{name.lower()}" for name in GIVEN}
    done = subprocess.run(
        ["sh", FOLDER / SECRETS, "ai-middleware"],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "CREATE ROLE exporter" in done.stderr
    assert not [name for name, value in given.items() if value not in done.stdout]
    return list(yaml.safe_load_all(done.stdout))


def test_every_key_of_a_secret_that_is_used_is_made() -> None:
    made = {(each["metadata"]["name"], key) for each in secrets() for key in each["stringData"]}
    used = set(re.findall(r"'secretKeyRef': \{'key': '([^']+)', 'name': '([^']+)'\}", str(list(workloads()))))
    assert used
    assert {(name, key) for key, name in used} <= made
    user = next(each for each in rendered(EXPORTERS) if each["kind"] == "MongoDBCommunity")["spec"]["users"][-1]
    assert (user["passwordSecretRef"]["name"], user["passwordSecretRef"]["key"]) in made


def test_a_secret_that_is_not_given_is_asked_for() -> None:
    done = subprocess.run(
        ["sh", FOLDER / SECRETS, "x"], env={"PATH": os.environ["PATH"]}, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert not done.stdout


def test_nobody_talks_to_whom_no_policy_names() -> None:
    """Each pod is chosen by a policy of its own that bounds both directions; nothing lets in whoever comes."""
    policies = [each["spec"] for each in everything() if each["kind"] == "NetworkPolicy"]
    for each in workloads():
        app = each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"]
        own = [
            policy
            for policy in policies
            if policy["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name") == app
        ]
        assert any(set(policy["policyTypes"]) == {"Ingress", "Egress"} for policy in own), app
    for policy in policies:
        for let_in in policy.get("ingress", ()):
            assert let_in["from"]
            assert let_in["ports"]


def test_prometheus_may_reach_every_port_that_it_scrapes() -> None:
    """By the policies of both ends: those of exporters name its pods, and its own names their ports."""
    ports = {
        port["containerPort"]
        for name, _, container in containers()
        for port in container["ports"]
        if name != "alertmanager" or port["name"] == "http"
    }
    prometheus = next(
        each["spec"]
        for each in rendered(STACK)
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "prometheus"
    )
    allowed = {port["port"] for rule in prometheus["egress"] for port in rule["ports"]}
    assert ports <= allowed
    assert 8081 in allowed
