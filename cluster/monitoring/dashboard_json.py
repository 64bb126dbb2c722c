"""Grafana's JSON of a dashboard."""

from __future__ import annotations

import json

from cluster.monitoring.model import Dashboard, Panel, Query
from finsent.metric_list import SWEEP_RUNNING, TRAIN_STEP

_SCHEMA = 39  # of Grafana 11
_COLUMNS, _WIDTH, _HEIGHT = 2, 12, 8  # a row of Grafana's grid is 24 wide
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_RUN_METRICS = {"training": TRAIN_STEP, "sweeps": SWEEP_RUNNING}  # have the label `run`
Document = dict[str, object]


def dashboard_json(dashboard: Dashboard) -> str:
    """Return a dashboard as a file of Grafana."""
    document = {
        "uid": f"finsent-{dashboard.name}",
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["finsent"],
        "schemaVersion": _SCHEMA,
        "editable": False,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [_link("finsent")],
        "templating": {"list": _variables(dashboard)},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _link(tag: str) -> Document:
    return {"type": "dashboards", "tags": [tag], "title": tag, "asDropdown": True}


def _variables(dashboard: Dashboard) -> list[Document]:
    variables: list[Document] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    ]
    if dashboard.selects_run:
        query = f"label_values({_RUN_METRICS[dashboard.name].series}, run)"
        variables.append(
            {
                "name": "run",
                "type": "query",
                "label": "Run",
                "datasource": _DATASOURCE,
                "query": {"query": query, "refId": "run"},
                "refresh": 2,  # when the time range changes
                "multi": True,
                "includeAll": True,
                "allValue": ".+",
                "current": {"text": "All", "value": "$__all"},
            }
        )
    return variables


def _panel(number: int, panel: Panel) -> Document:
    row, column = divmod(number, _COLUMNS)
    limits = {"min": 0} if panel.maximum is None else {"min": 0, "max": panel.maximum}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _DATASOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, **limits}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [_target(index, query) for index, query in enumerate(panel.queries)],
    }


def _target(index: int, query: Query) -> Document:
    return {
        "refId": chr(ord("A") + index),
        "datasource": _DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
    }
