"""What the manifests promise, held against what is rendered."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from gateway.settings.whole import SHUTDOWN_S

from .rendered import EVERYTHING, OVERLAYS, Manifest, containers, objects, pods, rendered

DEVELOPMENT, PRODUCTION = OVERLAYS
OURS = ("ai-middleware", "ai-middleware-worker")
STREAM_S = 300


def _container(kind: str, name: str, overlay: str = PRODUCTION) -> Manifest:
    [found] = objects(overlay, kind)[name]["spec"]["template"]["spec"]["containers"]
    return dict(found)


# Names and sizes


def test_the_names() -> None:
    assert set(objects(PRODUCTION, "Deployment")) == set(OURS)
    assert set(objects(PRODUCTION, "HorizontalPodAutoscaler")) == {"ai-middleware-hpa"}
    assert set(objects(PRODUCTION, "Ingress")) == {"ai-middleware-ingress"}
    assert "ai-middleware-service" in objects(PRODUCTION, "Service")
    assert objects(PRODUCTION, "Namespace")


@pytest.mark.parametrize(
    ("name", "replicas", "requests", "limits", "consumes"),
    [
        ("ai-middleware", 3, ("250m", "512Mi"), ("500m", "1Gi"), "false"),
        ("ai-middleware-worker", 2, ("100m", "256Mi"), ("200m", "512Mi"), "true"),
    ],
)
def test_the_size_of_the_server_and_the_worker(
    name: str, replicas: int, requests: tuple[str, str], limits: tuple[str, str], consumes: str
) -> None:
    assert objects("base", "Deployment")[name]["spec"]["replicas"] == replicas
    container = _container("Deployment", name)
    resources = container["resources"]
    assert (resources["requests"]["cpu"], resources["requests"]["memory"]) == requests
    assert (resources["limits"]["cpu"], resources["limits"]["memory"]) == limits
    assert {"name": "CONSUMER_STATUS", "value": consumes} in container["env"]


def test_the_server_scales() -> None:
    spec = objects(PRODUCTION, "HorizontalPodAutoscaler")["ai-middleware-hpa"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (3, 20)
    targets = {each["resource"]["name"]: each["resource"]["target"]["averageUtilization"] for each in spec["metrics"]}
    assert targets == {"cpu": 70, "memory": 80}
    down = spec["behavior"]["scaleDown"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 360}]
    assert down["policies"][0]["periodSeconds"] >= STREAM_S, "the last one's streams end first"
    streams = objects(EVERYTHING, "HorizontalPodAutoscaler")["ai-middleware-hpa"]["spec"]["metrics"]
    assert any(each["type"] == "Pods" for each in streams)


def test_what_the_autoscaler_decides_is_not_undone_by_an_apply() -> None:
    """https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/"""
    for scaler in objects(PRODUCTION, "HorizontalPodAutoscaler").values():
        assert "replicas" not in objects(PRODUCTION, "Deployment")[scaler["spec"]["scaleTargetRef"]["name"]]["spec"]


@pytest.mark.parametrize(
    ("kind", "name", "replicas", "requests", "limits", "storage"),
    [
        ("MongoDBCommunity", "ai-middleware-mongodb", 3, ("500m", "1Gi"), ("1", "2Gi"), "100Gi"),
        ("StatefulSet", "ai-middleware-timescaledb", 1, ("500m", "1Gi"), ("1", "2Gi"), "100Gi"),
        ("StatefulSet", "ai-middleware-timescaledb-replica", 1, ("500m", "1Gi"), ("1", "2Gi"), "100Gi"),
        ("StatefulSet", "ai-middleware-redis", 6, ("100m", "256Mi"), ("200m", "512Mi"), "10Gi"),
        ("StatefulSet", "ai-middleware-rabbitmq", 3, ("200m", "512Mi"), ("1", "1Gi"), "10Gi"),
    ],
)
def test_the_size_of_the_data_tier(
    kind: str, name: str, replicas: int, requests: tuple[str, str], limits: tuple[str, str], storage: str
) -> None:
    spec: dict[str, Any] = objects(PRODUCTION, kind)[name]["spec"]
    assert spec.get("replicas", spec.get("members")) == replicas
    made = spec["statefulSet"]["spec"] if kind == "MongoDBCommunity" else spec
    resources = made["template"]["spec"]["containers"][0]["resources"]
    assert (resources["requests"]["cpu"], resources["requests"]["memory"]) == requests
    assert (resources["limits"]["cpu"], resources["limits"]["memory"]) == limits
    assert made["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == storage


def test_mongodb() -> None:
    spec = objects(PRODUCTION, "MongoDBCommunity")["ai-middleware-mongodb"]["spec"]
    assert spec["version"].startswith("7.0.")
    assert spec["security"]["authentication"]["modes"] == ["SCRAM-SHA-256"]
    made = spec["statefulSet"]["spec"]["template"]["spec"]["initContainers"]
    assert {each["name"] for each in made} == {"mongod-posthook", "mongodb-agent-readinessprobe"}, "the operator's"
    [role] = spec["security"]["roles"]
    assert all(each["resource"] == {"db": "ai_middleware", "collection": ""} for each in role["privileges"])
    users = {user["name"]: user["roles"] for user in spec["users"]}
    assert users["ai-middleware"] == [{"name": role["role"], "db": "ai_middleware"}]
    config = spec["additionalMongodConfig"]
    assert config["storage.wiredTiger.collectionConfig.blockCompressor"] == "snappy"
    assert config["storage.wiredTiger.engineConfig.journalCompressor"] == "zlib"


def test_redis_is_a_cluster_that_forgets_little() -> None:
    [config] = [each for name, each in objects(PRODUCTION, "ConfigMap").items() if name.startswith("redis-config")]
    lines = config["data"]["redis.conf"].splitlines()
    for line in ("cluster-enabled yes", "cluster-node-timeout 5000", "cluster-port 16379", "appendonly yes"):
        assert line in lines
    ports = {port["port"] for port in objects(PRODUCTION, "Service")["ai-middleware-redis"]["spec"]["ports"]}
    assert ports == {6379, 16379}
    assert "ai-middleware-redis-form-cluster" in objects(PRODUCTION, "Job")


# Health and endings


def test_the_server_s_probes() -> None:
    container = _container("Deployment", "ai-middleware")
    live, ready, start = (container[f"{name}Probe"] for name in ("liveness", "readiness", "startup"))
    assert live["httpGet"] == {"path": "/healthcheck", "port": "http"}
    assert (live["initialDelaySeconds"], live["periodSeconds"]) == (30, 10)
    assert ready["httpGet"] == {"path": "/readyz", "port": "internal"}
    assert (ready["initialDelaySeconds"], ready["periodSeconds"]) == (5, 5)
    assert start["periodSeconds"] * start["failureThreshold"] >= 60


@pytest.mark.parametrize("name", [*OVERLAYS, EVERYTHING])
def test_whatever_stays_is_probed(name: str) -> None:
    for owner, pod in pods(name):
        if owner.split("/")[0] in ("Deployment", "StatefulSet"):
            for container in pod["spec"]["containers"]:
                assert {"livenessProbe", "startupProbe"} <= container.keys(), owner


@pytest.mark.parametrize("name", OURS)
def test_a_stream_of_300_seconds_ends_before_its_pod(name: str) -> None:
    pod = objects(PRODUCTION, "Deployment")[name]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    slept = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    assert pod["terminationGracePeriodSeconds"] >= slept + STREAM_S + 20, "20 s for what is to be booked"
    assert name != "ai-middleware" or slept >= 5, "balancers hear of it first"


def test_a_rollout_takes_no_pod_away_before_a_new_one_serves() -> None:
    for name in OURS:
        strategy = objects(PRODUCTION, "Deployment")[name]["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_nothing_is_evicted_whole() -> None:
    budgets = objects(PRODUCTION, "PodDisruptionBudget")
    selected = [tuple(sorted(each["spec"]["selector"]["matchLabels"].items())) for each in budgets.values()]
    assert len(selected) == len(set(selected)) >= 6
    assert budgets["ai-middleware"]["spec"]["minAvailable"] == 2


def test_copies_are_on_several_nodes() -> None:
    for owner, pod in pods(PRODUCTION):
        if owner.split("/")[0] in ("Deployment", "MongoDBCommunity"):
            keys = {each["topologyKey"] for each in pod["spec"]["topologySpreadConstraints"]}
            assert "kubernetes.io/hostname" in keys, owner


def test_the_migration_is_taken_away_so_that_the_next_can_be_applied() -> None:
    job = objects(PRODUCTION, "Job")["ai-middleware-migrate"]["spec"]
    assert job["ttlSecondsAfterFinished"] <= 600
    assert job["template"]["spec"]["containers"][0]["args"] == ["migrate"]


# Least privilege


@pytest.mark.parametrize("name", [*OVERLAYS, EVERYTHING])
def test_every_image_has_its_version(name: str) -> None:
    for owner, container in containers(name):
        if not owner.startswith("MongoDBCommunity/"):  # its operator knows which
            assert re.search(r":v?\d+\.\d+(\.\d+)?(-[\w.]+)?$", container["image"]), (owner, container["image"])


@pytest.mark.parametrize("name", [*OVERLAYS, EVERYTHING])
def test_every_container_is_bounded(name: str) -> None:
    for owner, container in containers(name):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys(), owner


@pytest.mark.parametrize("name", [*OVERLAYS, EVERYTHING])
def test_every_container_is_restricted(name: str) -> None:
    """As https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted, and with a root that is read
    alone."""
    found = 0
    for owner, container in containers(name):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, owner
        assert security["readOnlyRootFilesystem"] is True, owner
        assert security["capabilities"] == {"drop": ["ALL"]}, owner
        found += 1
    assert found
    for owner, pod in pods(name):
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, owner
        assert security["runAsUser"] > 0, owner
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        for volume in pod["spec"].get("volumes", ()):
            assert volume.keys() & {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}, owner
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), owner


def test_ours_run_as_the_image_s_user() -> None:
    for owner, pod in pods(PRODUCTION):
        if any("ai-middleware:" in each["image"] for each in pod["spec"]["containers"] if "image" in each):
            assert (pod["spec"]["securityContext"]["runAsUser"], pod["spec"]["securityContext"]["fsGroup"]) == (
                1001,
                1001,
            ), owner


def test_the_namespaces_refuse_what_is_not_restricted() -> None:
    for name in OVERLAYS:
        [namespace] = objects(name, "Namespace").values()
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_no_pod_has_a_token_of_kubernetes() -> None:
    for owner, pod in pods(PRODUCTION):
        if not owner.startswith("MongoDBCommunity/"):
            assert pod["spec"]["automountServiceAccountToken"] is False, owner
    for account in objects(PRODUCTION, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False


def test_no_role_reads_secrets_or_enters_pods() -> None:
    roles = objects(PRODUCTION, "Role")
    assert set(roles) == {"ai-middleware-viewer", "ai-middleware-deployer"}
    for role in roles.values():
        for rule in role["rules"]:
            assert not {"secrets", "pods/exec", "pods/attach", "*"} & set(rule["resources"])
            assert "*" not in rule["verbs"] + rule["apiGroups"]
    assert not objects(PRODUCTION, "ClusterRole")


@pytest.mark.parametrize("name", [*OVERLAYS, EVERYTHING])
def test_no_secret_is_written_down(name: str) -> None:
    assert not objects(name, "Secret")
    for owner, container in containers(name):
        for variable in container.get("env", ()):
            if re.search("PASSWORD|SECRET|KEY|_UR[IL]|REDISCLI_AUTH|_PASS$", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], (owner, variable["name"])


# What is reached from where


def test_the_internal_port_is_in_no_service_and_no_ingress() -> None:
    services = objects(PRODUCTION, "Service")
    assert services["ai-middleware-service"]["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}
    ]
    assert services["ai-middleware-service"]["spec"]["type"] == "ClusterIP"
    [ingress] = objects(PRODUCTION, "Ingress").values()
    backends = [path["backend"]["service"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert backends == [{"name": "ai-middleware-service", "port": {"name": "http"}}]


def test_nothing_is_open_to_the_outside_but_the_ingress() -> None:
    for service in objects(PRODUCTION, "Service").values():
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    for owner, pod in pods(PRODUCTION):
        assert not pod["spec"].get("hostNetwork"), owner
        assert not any("hostPort" in port for each in pod["spec"]["containers"] for port in each.get("ports", ()))


def test_the_ingress() -> None:
    [ingress] = objects(PRODUCTION, "Ingress").values()
    notes = {name.rpartition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert notes["ssl-redirect"] == "true"
    assert notes["proxy-body-size"] == "50m"
    assert (notes["proxy-read-timeout"], notes["proxy-send-timeout"]) == ("300", "300")
    assert (notes["proxy-buffering"], notes["proxy-http-version"]) == ("off", "1.1")
    assert int(notes["limit-rps"]) > 0
    assert int(notes["limit-connections"]) > 0
    [tls] = ingress["spec"]["tls"]
    assert tls["hosts"] == [rule["host"] for rule in ingress["spec"]["rules"]]


def _selects(selector: Manifest, labels: Manifest) -> bool:
    wanted = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ())
    )


def _may(sender: Manifest, receiver: Manifest, port: int | str) -> bool:
    """Whether both ends' policies let a connection of the namespace pass."""

    def lets(kind: str, peers: str, own: Manifest, other: Manifest) -> bool:
        for policy in objects(PRODUCTION, "NetworkPolicy").values():
            if not _selects(policy["spec"]["podSelector"], own):
                continue
            for rule in policy["spec"].get(kind, ()):
                ports = {each["port"] for each in rule.get("ports", ())}
                found = [each["podSelector"] for each in rule.get(peers, ()) if set(each) == {"podSelector"}]
                if port in ports and any(_selects(each, other) for each in found):
                    return True
        return False

    return lets("egress", "to", sender, receiver) and lets("ingress", "from", receiver, sender)


def test_only_the_arrows_of_the_architecture() -> None:
    labels: dict[str, Manifest] = {}
    for owner, pod in pods(PRODUCTION):
        labels[owner.split("/")[1]] = pod["metadata"]["labels"]
    api, worker, migrate = "ai-middleware", "ai-middleware-worker", "ai-middleware-migrate"
    mongodb, redis, rabbitmq = "ai-middleware-mongodb", "ai-middleware-redis", "ai-middleware-rabbitmq"
    primary, replica = "ai-middleware-timescaledb", "ai-middleware-timescaledb-replica"
    backups = ("ai-middleware-backup-documents", "ai-middleware-backup-ledger")
    wanted = {
        *((each, mongodb, 27017) for each in (api, worker, migrate, mongodb, *backups)),
        *(
            (each, store, 5432)
            for each in (api, worker, migrate, primary, replica, *backups)
            for store in (primary, replica)
        ),
        *((each, redis, 6379) for each in (api, worker, redis, "ai-middleware-redis-form-cluster")),
        (redis, redis, 16379),
        *((each, rabbitmq, 5672) for each in (api, worker)),
        *((rabbitmq, rabbitmq, port) for port in (4369, 25672)),
    }
    found = {
        (sender, receiver, port)
        for sender in labels
        for receiver in labels
        for port in (27017, 5432, 6379, 16379, 5672, 4369, 25672, 15692, "http", "internal", 8080, 8081)
        if _may(labels[sender], labels[receiver], port)
    }
    assert found == wanted


def test_by_default_nobody_talks_to_anybody() -> None:
    for name in OVERLAYS:
        policy = objects(name, "NetworkPolicy")["default-deny"]["spec"]
        assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_vendors_are_reached_and_private_networks_are_not() -> None:
    [rule] = objects(PRODUCTION, "NetworkPolicy")["ai-middleware-egress"]["spec"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 443}]
    for block in (peer["ipBlock"] for peer in rule["to"]):
        assert {"10.0.0.0/8", "169.254.0.0/16"} <= set(block["except"]) or "fc00::/7" in block["except"]


def test_the_mesh_is_strict() -> None:
    assert objects(EVERYTHING, "PeerAuthentication")["ai-middleware"]["spec"] == {"mtls": {"mode": "STRICT"}}


@pytest.mark.parametrize("name", OURS)
def test_the_mesh_s_proxy_starts_first_and_ends_last(name: str) -> None:
    template = objects(EVERYTHING, "Deployment")[name]["spec"]["template"]
    [policy] = [
        each["spec"]
        for each in objects(EVERYTHING, "NetworkPolicy").values()
        if "istiod" in str(each) and _selects(each["spec"]["podSelector"], template["metadata"]["labels"])
    ]
    assert policy["egress"][0]["ports"] == [{"protocol": "TCP", "port": 15012}]
    told = yaml.safe_load(template["metadata"]["annotations"]["proxy.istio.io/config"])
    [container] = template["spec"]["containers"]
    slept = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    longest = int(SHUTDOWN_S)
    drained = int(told["terminationDrainDuration"].removesuffix("s"))
    assert told["holdApplicationUntilProxyStarts"] is True
    assert slept + longest + 30 < drained < template["spec"]["terminationGracePeriodSeconds"]


def test_a_certificate_can_be_proved() -> None:
    """cert-manager's pod is asked by the Ingress, though by default nobody is."""
    policy = objects(PRODUCTION, "NetworkPolicy")["certificate"]["spec"]
    assert policy["podSelector"]["matchLabels"] == {"acme.cert-manager.io/http01-solver": "true"}
    [rule] = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8089}]
    asking = objects(PRODUCTION, "NetworkPolicy")["ai-middleware-ingress"]["spec"]["ingress"][0]["from"]
    assert rule["from"] == asking


def test_names_are_looked_up_on_the_node_too() -> None:
    [rule] = objects(PRODUCTION, "NetworkPolicy")["ai-middleware-dns"]["spec"]["egress"]
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in rule["to"], "NodeLocal DNSCache"


def test_the_overlay_to_try_it_needs_nothing_else() -> None:
    assert len(objects(DEVELOPMENT, "Deployment")) == 1
    for owner, container in containers(DEVELOPMENT):
        assert all("valueFrom" not in variable for variable in container["env"]), owner
    assert len(rendered(DEVELOPMENT)) < len(rendered(PRODUCTION))
