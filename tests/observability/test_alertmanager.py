"""Who is told of what, by Alertmanager's own tools and by a real one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import yaml

from tests.servers.prometheus import CONFIGURATION, found_or_skip, running_alertmanager

from .written import alerts

FILE = CONFIGURATION / "alertmanager" / "alertmanager.yml"
TOLD: dict[str, Any] = yaml.safe_load(FILE.read_text())
RECEIVERS = {"page": "on-call,tickets", "ticket": "tickets", "none": "heartbeat"}
SECRET_FIELDS = ("api_url", "routing_key", "service_key", "credentials", "password", "bearer_token", "auth_password")


def amtool(*arguments: str) -> str:
    done = subprocess.run([found_or_skip("amtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_valid() -> None:
    assert "SUCCESS" in amtool("check-config", str(FILE))


@pytest.mark.parametrize("alert", list(alerts()), ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_every_alert_reaches_whom_it_is_for(alert: Mapping[str, Any]) -> None:
    labels = {"alertname": alert["alert"], "namespace": "ai-middleware", **alert["labels"]}
    told = [f"{name}={value}" for name, value in labels.items()]
    route = ["config", "routes", "test", f"--config.file={FILE}"]
    assert amtool(*route, f"--verify.receivers={RECEIVERS[labels['severity']]}", *told)


def test_what_is_nobodys_is_a_ticket() -> None:
    route = ["config", "routes", "test", f"--config.file={FILE}", "--verify.receivers=tickets"]
    assert amtool(*route, "alertname=SomethingElse")


def test_a_wrong_receiver_is_seen() -> None:
    command = [found_or_skip("amtool"), "config", "routes", "test", f"--config.file={FILE}", "severity=page"]
    done = subprocess.run([*command, "--verify.receivers=tickets"], capture_output=True, check=False)
    assert done.returncode != 0


def test_there_is_no_secret_in_it() -> None:
    fields = dict(_fields(TOLD))
    assert not [path for path in fields if path[-1] in SECRET_FIELDS]
    files = {value for path, value in fields.items() if path[-1].endswith("_file")}
    assert len(files) == 3
    assert all(value.startswith("/etc/alertmanager/secrets/") for value in files)


def _fields(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, Mapping):
        for name, below in node.items():
            yield from _fields(below, (*path, name))
    elif isinstance(node, list):
        for number, below in enumerate(node):
            yield from _fields(below, (*path, str(number)))
    else:
        yield path, node


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    found_or_skip("prometheus-alertmanager")
    with running_alertmanager(tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


def alert(name: str, severity: str = "ticket", **labels: str) -> dict[str, str]:
    return {"alertname": name, "severity": severity, "namespace": "ai-middleware", **labels}


def away(dependency: str) -> dict[str, str]:
    return alert("DependencyDown", "page", dependency=dependency)


BURNS = (alert("ErrorBudgetBurn", "page", window="1h"), alert("ErrorBudgetBurn", "ticket", window="3d"))
FULL = alert("DiskFilling", "page", persistentvolumeclaim="a")


@pytest.mark.parametrize(
    ("told", "silenced"),
    [
        ([away("TimescaleDB"), alert("LedgerLagging"), alert("LedgerSpooled", "page")], ["LedgerLagging"]),
        ([away("RabbitMQ"), alert("QueueStuck", "page"), alert("JobsParked"), alert("LedgerLagging")], ["QueueStuck"]),
        ([away("MongoDB"), alert("QueueStuck", "page"), alert("CircuitOpen")], ["QueueStuck"]),
        ([away("RabbitMQ"), alert("BatchesNotDrained"), alert("OperationsShed", "page")], ["BatchesNotDrained"]),
        ([away("MongoDB"), alert("BatchesNotDrained")], ["BatchesNotDrained"]),
        (
            [
                away("Redis"),
                alert("AiMiddlewareNotReady", pod="a"),
                alert("DatabaseNodeDown"),
                alert("QueueStuck", "page"),
            ],
            ["AiMiddlewareNotReady", "DatabaseNodeDown"],
        ),
        (
            [alert("AiMiddlewareDown", "page"), alert("PodRestarting", pod="a"), alert("CertificateExpiring")],
            ["PodRestarting"],
        ),
        ([alert("LedgerUnavailable", "page"), BURNS[0], alert("ProviderFailing")], ["ErrorBudgetBurn"]),
        (
            [
                alert("ProviderFailing", provider="openai"),
                alert("CircuitOpen", provider="openai"),
                alert("CircuitOpen", provider="groq"),
            ],
            ["CircuitOpen"],
        ),
        ([*BURNS, alert("ProviderFailing")], ["ErrorBudgetBurn"]),
        (
            [
                FULL,
                alert("DiskFilling", persistentvolumeclaim="a"),
                alert("DiskFilling", persistentvolumeclaim="b"),
            ],
            ["DiskFilling"],
        ),
    ],
)
def test_what_follows_from_another_is_not_told(
    alertmanager: str, told: Sequence[Mapping[str, str]], silenced: Sequence[str]
) -> None:
    fire(alertmanager, told)
    try:
        end = time.monotonic() + 30
        while (found := inhibited(alertmanager)) != silenced:
            assert time.monotonic() < end, found
            time.sleep(0.1)
    finally:
        fire(alertmanager, told, ends_at=datetime.now(UTC))


def fire(url: str, told: Sequence[Mapping[str, str]], ends_at: datetime | None = None) -> None:
    over = {} if ends_at is None else {"endsAt": ends_at.isoformat()}
    answer = httpx.post(f"{url}/api/v2/alerts", json=[{"labels": each, **over} for each in told], timeout=30)
    assert answer.status_code == 200, answer.text


def inhibited(url: str) -> Sequence[str]:
    answer = httpx.get(f"{url}/api/v2/alerts", timeout=30).json()
    return sorted(each["labels"]["alertname"] for each in answer if each["status"]["inhibitedBy"])
