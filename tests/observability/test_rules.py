"""Rules: what promtool says of them, that each alert is shown to fire and to be silent, and where it leads."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.servers.prometheus import CONFIGURATION, found_or_skip

from .written import ROOT, RULE_FILES, alerts, rules

TESTS = sorted((Path(__file__).with_name("rules")).glob("*.yml"))
PAGE = ROOT / "docs" / "alerts.md"
PARTS = ("**What it means.**", "**What users see.**", "**First.**", "**Silence.**")
NAMES = sorted({alert["alert"] for alert in alerts()})


def promtool(*arguments: str) -> str:
    done = subprocess.run([found_or_skip("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_valid() -> None:
    said = promtool("check", "rules", *map(str, RULE_FILES))
    assert f"{len(list(alerts()))} rules found" in said


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_they_say(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", str(path))


def test_every_alert_is_shown_to_fire_and_to_be_silent() -> None:
    fires: dict[str, set[str]] = {}
    silent: set[str] = set()
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for shown in test["alert_rule_test"]:
                for each in shown["exp_alerts"]:
                    fires.setdefault(shown["alertname"], set()).add(_kind(each["exp_labels"]))
                if not shown["exp_alerts"]:
                    silent.add(shown["alertname"])
    wanted: dict[str, set[str]] = {}
    for alert in alerts():
        wanted.setdefault(alert["alert"], set()).add(_kind(alert["labels"]))
    assert fires == wanted
    assert silent == wanted.keys() - {"Watchdog"}


def _kind(labels: dict[str, str]) -> str:
    return f"{labels['severity']} {labels.get('window', '')}"


@pytest.mark.parametrize("alert", NAMES)
def test_every_alert_has_its_chapter(alert: str) -> None:
    chapters = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    assert list(chapters) == sorted(chapters, key=list(dict.fromkeys(each["alert"] for each in alerts())).index)
    positions = [chapters[alert].index(part) for part in PARTS]
    assert positions == sorted(positions)


def test_every_alert_says_what_it_is_and_leads_to_its_chapter() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket", "none")
        assert alert["annotations"].keys() == {"summary", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/alerts.md#{alert['alert'].lower()}"


def test_recorded_names_say_level_metric_and_operation() -> None:
    """https://prometheus.io/docs/practices/rules/"""
    for rule in rules():
        if "record" in rule:
            assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", rule["record"])


def test_every_target_is_found_by_kubernetes_discovery() -> None:
    """Debian's Prometheus is built without it: its fields are held here, and all the rest in `test_queries.py`."""
    configuration = yaml.safe_load((CONFIGURATION / "prometheus" / "prometheus.yml").read_text())
    assert configuration["global"]["scrape_interval"] == "15s"
    for each in [*configuration["scrape_configs"], *configuration["alerting"]["alertmanagers"]]:
        assert not each.keys() & {"static_configs", "file_sd_configs", "dns_sd_configs"}
        for discovery in each["kubernetes_sd_configs"]:
            assert discovery.keys() <= {"role", "namespaces"}
            assert (discovery["role"] == "pod") == ("namespaces" in discovery)
            assert discovery["role"] in ("pod", "node")
