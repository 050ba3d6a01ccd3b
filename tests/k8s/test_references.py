"""What an object names is there: labels select somebody, ports and files are those of whom they are asked of."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .rendered import EVERYTHING, OVERLAYS, Manifest, containers, objects, pods, rendered

PRODUCTION = OVERLAYS[1]
ALL = pytest.mark.parametrize("name", [*OVERLAYS, EVERYTHING])
SECRETS = {("Secret", f"ai-middleware-{name}") for name in ("secrets", "data-secrets", "bucket", "backup-bucket")}
"""Made at the installation: `docs/operate.md` says how."""
NOBODY = 65534
STRANGERS = {"acme.cert-manager.io/http01-solver"}
"""Labels of pods that others start."""


def selected(overlay: str, labels: Manifest) -> list[Manifest]:
    return [pod for _, pod in pods(overlay) if labels.items() <= pod["metadata"]["labels"].items()]


def ports(pod: Manifest) -> set[str | int]:
    given = [port for each in pod["spec"]["containers"] for port in each.get("ports", ())]
    return {each["name"] for each in given} | {each["containerPort"] for each in given}


def asked_for_variables(overlay: str) -> Iterator[tuple[str, str]]:
    for _, container in containers(overlay):
        for source in container.get("envFrom", ()):
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if key in source:
                    yield kind, source[key]["name"]
        for variable in container.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                yield "Secret", reference["name"]


def asked_for_pods(overlay: str) -> Iterator[tuple[str, str]]:
    for _, pod in pods(overlay):
        if account := pod["spec"].get("serviceAccountName"):
            yield "ServiceAccount", account
        for volume in pod["spec"].get("volumes", ()):
            if "configMap" in volume:
                yield "ConfigMap", volume["configMap"]["name"]
            if "persistentVolumeClaim" in volume:
                yield "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]


@ALL
def test_what_pods_ask_for_is_there(name: str) -> None:
    made = {(each["kind"], each["metadata"]["name"]) for each in rendered(name)}
    assert {*asked_for_variables(name), *asked_for_pods(name)} - made <= SECRETS


@ALL
def test_mounted_volumes_are_the_pod_s(name: str) -> None:
    for owner, pod in pods(name):
        own = {each["name"] for each in pod["spec"].get("volumes", ())}
        if owner.startswith("StatefulSet/"):
            templates = objects(name, "StatefulSet")[owner.split("/")[1]]["spec"]["volumeClaimTemplates"]
            own |= {each["metadata"]["name"] for each in templates}
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            assert {each["name"] for each in container.get("volumeMounts", ())} <= own, owner


@ALL
def test_services_and_probes_reach_a_port_that_is_open(name: str) -> None:
    for service, each in objects(name, "Service").items():
        found = selected(name, each["spec"]["selector"])
        assert found, service
        for pod in found:
            assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports(pod), service
    for owner, pod in pods(name):
        for container in pod["spec"]["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if http := container.get(probe, {}).get("httpGet"):
                    assert http["port"] in ports(pod), (owner, probe)
    for set_name, each in objects(name, "StatefulSet").items():
        assert each["spec"]["serviceName"] in objects(name, "Service"), set_name


def test_every_policy_and_every_budget_is_of_somebody() -> None:
    for kind, key in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
        for name, each in objects(EVERYTHING, kind).items():
            labels = each["spec"][key].get("matchLabels", {})
            assert labels.keys() & STRANGERS or selected(EVERYTHING, labels), name


def copies(owner: str) -> int:
    """As many as there are at least."""
    kind, name = owner.split("/")
    for scaler in objects(PRODUCTION, "HorizontalPodAutoscaler").values():
        if scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": kind, "name": name}:
            return int(scaler["spec"]["minReplicas"])
    spec = objects(PRODUCTION, kind)[name]["spec"]
    return int(spec["members"] if kind == "MongoDBCommunity" else spec["replicas"])


def test_a_node_can_be_drained() -> None:
    """Each budget lets one pod go while all are well."""
    for name, each in objects(PRODUCTION, "PodDisruptionBudget").items():
        labels = each["spec"]["selector"]["matchLabels"]
        owners = [owner for owner, pod in pods(PRODUCTION) if labels.items() <= pod["metadata"]["labels"].items()]
        assert sum(map(copies, owners)) > each["spec"].get("minAvailable", 0), name
        assert each["spec"].get("maxUnavailable", 1) > 0, name


RESOURCES = {
    "Ingress": "ingresses",
    "MongoDBCommunity": "mongodbcommunity",
    "NetworkPolicy": "networkpolicies",
    "AuthorizationPolicy": "authorizationpolicies",
}
"""In the plural, where that is not the kind with an s."""


def test_whoever_deploys_may_apply_the_whole_overlay() -> None:
    """`kubectl apply` reads every object; what gives rights is made by whoever installs."""
    rules = objects(EVERYTHING, "Role")["ai-middleware-deployer"]["rules"]
    for each in rendered(EVERYTHING):
        group, kind = each["apiVersion"].rpartition("/")[0], each["kind"]
        resource = RESOURCES.get(kind, f"{kind.lower()}s")
        of = [rule for rule in rules if group in rule["apiGroups"] and resource in rule["resources"]]
        may = {verb for rule in of for verb in rule["verbs"]}
        if kind in ("Namespace", "Role", "RoleBinding"):
            assert may == {"get"}, kind
        else:
            assert {"get", "create", "patch"} <= may, kind


def test_the_share_of_limits_is_for_as_many_as_there_can_be() -> None:
    [config] = [
        each for name, each in objects(PRODUCTION, "ConfigMap").items() if name.startswith("ai-middleware-config")
    ]
    most = objects(PRODUCTION, "HorizontalPodAutoscaler")["ai-middleware-hpa"]["spec"]["maxReplicas"]
    workers = objects(PRODUCTION, "Deployment")["ai-middleware-worker"]["spec"]["replicas"]
    assert int(config["data"]["LIMIT_FALLBACK_SHARE"]) >= most + workers


def test_rabbitmq_s_cookie_is_taken_at_every_start() -> None:
    """Its volume has the one of the start before, which nobody may write, its owner neither."""
    pod = objects(PRODUCTION, "StatefulSet")["ai-middleware-rabbitmq"]["spec"]["template"]["spec"]
    [cookie] = pod["initContainers"]
    with tempfile.TemporaryDirectory() as folder:
        secrets, data = Path(folder, "secrets"), Path(folder, "data")
        for each in (Path(folder), secrets, data):
            each.mkdir(exist_ok=True)
            each.chmod(0o777)
        command = [part.replace("/secrets", str(secrets)) for part in (*cookie["command"], *cookie.get("args", ()))]
        command = [part.replace("/var/lib/rabbitmq", str(data)) for part in command]
        user = NOBODY if os.geteuid() == 0 else None
        for given in ("one", "another"):
            (secrets / "rabbitmq-erlang-cookie").write_text(given)
            done = subprocess.run(command, user=user, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        made = data / ".erlang.cookie"
        assert (made.stat().st_mode & 0o777, made.read_bytes()) == (0o400, b"another")
