"""Dashboards are what `make dashboards` writes, and provisioning finds them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest
import yaml

from .written import DASHBOARDS, FOLDER

GRAFANA = FOLDER / "grafana"


def writer() -> ModuleType:
    """The script, which is in no package."""
    spec = importlib.util.spec_from_file_location("write_dashboards", GRAFANA / "write_dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_are_as_they_would_be_written() -> None:
    written = {path.name: path.read_text() for path in DASHBOARDS}
    assert written == writer().dashboards(), "make dashboards"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_have_their_own_ids_and_places(path: Path) -> None:
    panels: list[dict[str, Any]] = orjson.loads(path.read_bytes())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "prometheus"
            assert panel["fieldConfig"]["defaults"]["unit"]


def test_provisioning_finds_them() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert [source["uid"] for source in sources] == ["prometheus"]
    providers = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "ai-middleware.yaml").read_text())[
        "providers"
    ]
    assert [provider["options"]["path"] for provider in providers] == ["/var/lib/grafana/dashboards"]
    told = yaml.safe_load((GRAFANA / "kustomization.yaml").read_text())["configMapGenerator"]
    files = next(each["files"] for each in told if each["name"] == "grafana-dashboards")
    assert sorted(files) == [f"dashboards/{path.name}" for path in DASHBOARDS]
