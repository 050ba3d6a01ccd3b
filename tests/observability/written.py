"""All that asks Prometheus for something: rules and dashboards, as they are in the repository."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "k8s" / "observability"
RULE_FILES = sorted((FOLDER / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))


@dataclass(frozen=True)
class Query:
    """`legend`: of a panel, with labels in double braces."""

    place: str
    text: str
    legend: str = ""


def rules() -> Iterator[dict[str, Any]]:
    for path in RULE_FILES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> Iterator[dict[str, Any]]:
    return (rule for rule in rules() if "alert" in rule)


def recorded() -> Iterator[Query]:
    return (Query(rule["record"], rule["expr"]) for rule in rules() if "record" in rule)


def alerted() -> Iterator[Query]:
    for rule in alerts():
        yield Query(f"{rule['alert']}/{rule['labels'].get('window', rule['labels']['severity'])}", rule["expr"])


def panels() -> Iterator[Query]:
    for path in DASHBOARDS:
        for panel in orjson.loads(path.read_bytes())["panels"]:
            for target in panel.get("targets", ()):
                yield Query(f"{path.stem}/{panel['title']}/{target['refId']}", target["expr"], target["legendFormat"])
