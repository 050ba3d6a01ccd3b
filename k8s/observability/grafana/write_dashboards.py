"""Writes dashboards/*.json from dashboards.yaml: `make dashboards`. Grafana's own library knows what Grafana reads."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, TooltipDisplayMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, VariableOption, VariableRefresh

FOLDER = Path(__file__).parent
DATASOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
"""As provisioning/datasources/prometheus.yaml names it."""
SPAN, HEIGHT = 12, 7
"""Of Grafana's grid of 24 columns: two panels beside each other."""


def dashboards() -> Mapping[str, str]:
    """File name → JSON."""
    told = yaml.safe_load((FOLDER / "dashboards.yaml").read_text())
    encoder = JSONEncoder(indent=1, sort_keys=True, ensure_ascii=False)
    return {f"{each['uid']}.json": encoder.encode(_dashboard(each).build()) + "\n" for each in told}


def _dashboard(told: Mapping[str, Any]) -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard(told["title"])
        .uid(told["uid"])
        .tags(["ai-middleware"])
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .timezone("browser")
        .refresh("30s")
        .time("now-3h", "now")
        .with_variable(_providers())
    )
    ids = count(1)
    for row in told["rows"]:
        built.with_row(dashboard.Row(row["title"]).id(next(ids)))
        for panel in row["panels"]:
            built.with_panel(_panel(panel).id(next(ids)))
    return built


def _providers() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("provider")
        .label("Provider")
        .datasource(DATASOURCE)
        .query({"query": "label_values(ai_circuit_state, provider)", "refId": "provider"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(told: Mapping[str, Any]) -> timeseries.Panel:
    panel = (
        timeseries.Panel()
        .title(told["title"])
        .unit(told["unit"])
        .min(0)
        .span(SPAN)
        .height(HEIGHT)
        .datasource(DATASOURCE)
        .fill_opacity(8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    if "description" in told:
        panel.description(told["description"])
    for number, (legend, query) in enumerate(told["queries"].items()):
        panel.with_target(prometheus.Dataquery().ref_id(chr(ord("A") + number)).expr(query).legend_format(legend))
    return panel


if __name__ == "__main__":
    (FOLDER / "dashboards").mkdir(exist_ok=True)
    for name, text in dashboards().items():
        (FOLDER / "dashboards" / name).write_text(text)
