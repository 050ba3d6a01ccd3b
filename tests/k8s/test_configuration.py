"""What the manifests and `make-secrets.sh` set is what the server reads."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from gateway.batch_work import refusal
from gateway.settings import Settings, load_settings

from .rendered import OVERLAYS, ROOT, containers, objects, pods

DEVELOPMENT, PRODUCTION = OVERLAYS
NAMESPACE = "somewhere"
VENDORS = {
    "OPENAI_API_KEY": "openai-key",
    "ANTHROPIC_API_KEY": "anthropic-key",
    "GOOGLE_API_KEY": "google-key",
    "GROQ_API_KEY": "groq-key",
    "MISTRAL_API_KEY": "mistral-key",
    "OPENROUTER_API_KEY": "openrouter-key",
}
NEEDED = {"mongodb-uri", "redis-uri", "rabbitmq-uri", "timescale-uri", "openai-key", "jwt-secret", "encryption-key"}


def secrets(**environment: str) -> Mapping[str, Mapping[str, str]]:
    done = subprocess.run(
        [str(ROOT / "make-secrets.sh"), NAMESPACE],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    made = list(yaml.safe_load_all(done.stdout))
    assert all(each["kind"] == "Secret" and each["metadata"]["namespace"] == NAMESPACE for each in made)
    return {each["metadata"]["name"]: each["stringData"] for each in made}


def configuration(overlay: str) -> Mapping[str, str]:
    [found] = [each for name, each in objects(overlay, "ConfigMap").items() if name.startswith("ai-middleware-config")]
    data: dict[str, str] = found["data"]
    return data


def environment(overlay: str, workload: str, made: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """As the kubelet puts it together."""
    [container] = objects(overlay, "Deployment")[workload]["spec"]["template"]["spec"]["containers"]
    found = dict(configuration(overlay))
    for variable in container["env"]:
        if "value" in variable:
            found[variable["name"]] = variable["value"]
            continue
        reference: dict[str, Any] = variable["valueFrom"]["secretKeyRef"]
        value = made[reference["name"]].get(reference["key"])
        assert value is not None or reference.get("optional"), reference
        if value is not None:
            found[variable["name"]] = value
    return found


@pytest.mark.parametrize("workload", ["ai-middleware", "ai-middleware-worker"])
def test_the_server_takes_what_it_is_given(monkeypatch: pytest.MonkeyPatch, workload: str) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    given = environment(PRODUCTION, workload, secrets(OPENAI_API_KEY="sk-of-a-test"))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert set(given) <= set(Settings.model_fields)
    settings = load_settings()
    assert settings.ENVIRONMENT == "PRODUCTION"
    assert (settings.HOST, settings.PORT, settings.INTERNAL_PORT) == ("0.0.0.0", 8080, 8081)
    assert settings.MAX_WORKERS == 1
    assert workload == "ai-middleware-worker" or not settings.CONSUMER_STATUS
    for name in ("MONGODB_CONNECTION_URI", "TIMESCALE_SERVICE_URL", "REDIS_URI", "QUEUE_CONNECTIONURL"):
        assert getattr(settings, name) is not None
    refused = refusal(settings)
    assert settings.CONSUMER_STATUS or refused is not None
    assert refused is None or refused.endswith("need OBJECT_STORE_URL"), "which is in a Secret that an operator makes"
    monkeypatch.setenv("OBJECT_STORE_URL", "s3://my-files/ai-middleware")
    assert refusal(load_settings()) is None, "batches are accepted, and worked on"


@pytest.mark.parametrize("workload", ["ai-middleware", "ai-middleware-worker"])
def test_files_are_in_one_bucket_for_all_pods(workload: str) -> None:
    [container] = objects(PRODUCTION, "Deployment")[workload]["spec"]["template"]["spec"]["containers"]
    assert {"secretRef": {"name": "ai-middleware-bucket", "optional": True}} in container["envFrom"]


def test_the_overlay_to_try_it_sets_what_the_server_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    given = environment(DEVELOPMENT, "ai-middleware", {})
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert set(given) <= set(Settings.model_fields)
    settings = load_settings()
    assert settings.ENVIRONMENT == "LOCAL"
    assert settings.CONSUMER_STATUS


def test_vendors_keys_come_from_the_environment() -> None:
    assert NEEDED - {"openai-key"} <= secrets()["ai-middleware-secrets"].keys()
    assert not set(VENDORS.values()) & secrets()["ai-middleware-secrets"].keys()
    made = secrets(**{name: f"the-{name}" for name in VENDORS})["ai-middleware-secrets"]
    assert made.keys() >= NEEDED
    assert {key: made[key] for key in VENDORS.values()} == {key: f"the-{name}" for name, key in VENDORS.items()}


def test_a_key_is_written_as_it_is() -> None:
    odd = 'it\'s \\n "$HOME": `id` # {x}'
    assert secrets(GROQ_API_KEY=odd)["ai-middleware-secrets"]["groq-key"] == odd


@pytest.mark.parametrize(("namespace", "key"), [(NAMESPACE, "two\nlines"), ("a'b", "x"), ("a b", "x")])
def test_what_can_t_be_right_makes_no_secrets(namespace: str, key: str) -> None:
    done = subprocess.run(
        [str(ROOT / "make-secrets.sh"), namespace],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "OPENAI_API_KEY": key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("make-secrets: ")


def test_every_password_is_new_each_time() -> None:
    one, other = secrets(), secrets()
    for name, values in one.items():
        for key, value in values.items():
            assert other[name][key] != value, key


def test_both_secrets_agree() -> None:
    made = secrets()
    data = made["ai-middleware-data-secrets"]
    uris = made["ai-middleware-secrets"]
    for key, password in (
        ("mongodb-uri", "mongodb-password"),
        ("mongodb-backup-uri", "mongodb-backup-password"),
        ("timescale-uri", "timescale-password"),
        ("timescale-replica-uri", "timescale-password"),
        ("redis-uri", "redis-password"),
        ("rabbitmq-uri", "rabbitmq-password"),
    ):
        assert f":{data[password]}@" in uris[key]


def test_every_key_that_a_pod_reads_is_made() -> None:
    made = secrets(**dict.fromkeys(VENDORS, "given"))
    asked = set()
    for _, container in containers(PRODUCTION):
        for variable in container.get("env", ()):
            if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                asked.add((reference["name"], reference["key"]))
    for _, pod in pods(PRODUCTION):
        for volume in pod["spec"].get("volumes", ()):
            if "secret" in volume:
                asked |= {(volume["secret"]["secretName"], item["key"]) for item in volume["secret"]["items"]}
    for user in objects(PRODUCTION, "MongoDBCommunity")["ai-middleware-mongodb"]["spec"]["users"]:
        asked.add((user["passwordSecretRef"]["name"], user["passwordSecretRef"]["key"]))
    assert asked == {(name, key) for name, values in made.items() for key in values}


def test_every_host_of_an_address_is_a_service_or_one_of_its_pods() -> None:
    services = objects(PRODUCTION, "Service")
    sets = objects(PRODUCTION, "StatefulSet")
    for uri in secrets()["ai-middleware-secrets"].values():
        if "@" not in uri:
            continue
        for host in uri.split("@")[1].split("/")[0].split(","):
            first, _, rest = host.partition(":")[0].partition(".")
            if rest == "ai-middleware-mongodb-svc":  # the operator's
                continue
            service = services[rest or first]
            port = int(host.rpartition(":")[2])
            assert port in {each["port"] for each in service["spec"]["ports"]}
            if rest:
                owner, _, number = first.rpartition("-")
                assert sets[owner]["spec"]["serviceName"] == rest
                assert int(number) < sets[owner]["spec"]["replicas"]
