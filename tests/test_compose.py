"""compose.yaml: valid by the compose specification, and nothing in it that would go to production unseen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from gateway.serving import check_processes
from gateway.settings import Settings, load_settings
from tests.servers.prometheus import RULES, found_or_skip

ROOT = Path(__file__).parents[1]
FILE = ROOT / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GIVEN = re.compile(r"\$\{(\w+):\?[^}]+\}")
"""A variable without which compose refuses to start."""


def test_it_is_valid() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_the_server_and_its_databases() -> None:
    databases = {"mongodb", "timescaledb", "redis", "rabbitmq"}
    assert set(SERVICES) == {"app", "worker", "migrate", *databases, "prometheus", "grafana"}
    assert "--replSet" in SERVICES["mongodb"]["entrypoint"][-1]
    for name in ("app", "worker"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert SERVICES[name]["depends_on"]["rabbitmq"] == {"condition": "service_healthy"}
    mounted = {volume.split(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert set(COMPOSE["volumes"]) == {source for source in mounted if not source.startswith("./")}
    assert all((ROOT / source).exists() for source in mounted if source.startswith("./"))


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_its_version(name: str) -> None:
    service = SERVICES[name]
    if "build" in service:
        assert service["build"] == "."  # the Dockerfile, which has a test of its own
    else:
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"])


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_everything_that_stays_tells_its_health(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_nothing_has_a_password_that_everyone_knows() -> None:
    secret = re.compile("PASSWORD|SECRET|_KEY$|_UR[IL]$")
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable) and not variable.endswith("_API_KEY") and not value.startswith("file:"):
                assert GIVEN.search(value), variable
                assert not GIVEN.sub("", value) or urlsplit(GIVEN.sub("PLACE", value)).password == "PLACE"
    said = re.findall(r"([A-Z]+_[A-Z]+)=%s", FILE.read_text())
    assert sorted(set(GIVEN.findall(FILE.read_text()))) == sorted(set(said)), "the way to set them is told"


def test_ports_are_this_machine_s_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_takes_what_it_is_given(tmp_path: Path) -> None:
    """With the deployment's rules. The server's metrics are on its own port, as it is LOCAL; the worker's on the port
    that the image sets."""
    told = COMPOSE["configs"]["prometheus"]["content"].replace("/etc/prometheus/rules", str(RULES))
    (tmp_path / "prometheus.yml").write_text(told)
    command = [found_or_skip("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout
    targets = [
        target for each in yaml.safe_load(told)["scrape_configs"][0]["static_configs"] for target in each["targets"]
    ]
    internal = re.search(r"^ +INTERNAL_PORT=(\d+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert internal
    assert targets == [f"app:{Settings.model_fields['PORT'].default}", f"worker:{internal[1]}"]
    assert f":{internal[1]}/readyz" in SERVICES["worker"]["healthcheck"]["test"][-1]


def test_the_server_takes_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = SERVICES["app"]["environment"]
    assert set(environment) <= set(Settings.model_fields)
    assert SERVICES["migrate"]["environment"] == SERVICES["worker"]["environment"] == environment
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-\}", "", GIVEN.sub("0123456789abcdef", value)))
    monkeypatch.delenv("MONGODB_CONNECTION_URI")
    settings = load_settings()
    assert settings.TIMESCALE_SERVICE_URL is not None
    check_processes(settings.model_copy(update={"MAX_WORKERS": 4, "MONGODB_CONNECTION_URI": "given above"}))
