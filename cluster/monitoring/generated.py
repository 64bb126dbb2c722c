"""The files that are made from the list of metrics, dashboards and alerts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cluster.monitoring.alerts import ALERTS
from cluster.monitoring.dashboard_json import dashboard_json
from cluster.monitoring.dashboards import DASHBOARDS
from cluster.monitoring.rules import rule_groups, rule_tests, to_yaml
from finsent.metric_list import JOB_METRICS, SERVICE_METRICS, Metric

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = "cluster/monitoring"
RULES, RULE_TESTS = f"{FOLDER}/rules.yml", f"{FOLDER}/rules_test.yml"
PAGE = "docs/monitoring.md"
KUBERNETES_RULES = "cluster/kubernetes/components/monitoring/rules.yaml"
_NOTE = "Made by `python -m cluster.monitoring`. Change cluster/monitoring/alerts.py instead."


def generated_files() -> dict[str, str]:
    """Return the content of each file by its path in the project."""
    groups = rule_groups()
    operator_rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "finsent",
            "namespace": "finsent",
            "labels": {"app.kubernetes.io/component": "monitoring"},
        },
        "spec": {"groups": groups},
    }
    return {
        RULES: to_yaml({"groups": groups}, _NOTE),
        RULE_TESTS: to_yaml(rule_tests(Path(RULES).name), _NOTE),
        KUBERNETES_RULES: to_yaml(operator_rule, _NOTE),
        PAGE: _page((PROJECT / PAGE).read_text(encoding="utf-8")),
        **{
            f"{FOLDER}/grafana/dashboards/{dashboard.name}.json": dashboard_json(dashboard)
            for dashboard in DASHBOARDS
        },
    }


def _page(text: str) -> str:
    """Return the page of the docs with new tables between its marks."""
    tables = {
        "service metrics": _metric_table(SERVICE_METRICS),
        "job metrics": _metric_table(JOB_METRICS),
        "alerts": _alert_list(),
    }
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def _metric_table(metrics: Iterable[Metric]) -> str:
    lines = ["| name | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(
            f"| `{metric.series}` | {metric.kind} | {metric.unit} | {labels} | {metric.text} |"
        )
    return "\n".join(lines)


def _alert_list() -> str:
    """Return a section per alert, which its annotation `runbook` names."""
    return "\n\n".join(
        f"### {alert.name}\n\n{_plain(alert.summary)}, for {alert.minutes} minutes "
        f"({alert.severity}). {alert.action}\n\n```text\n{alert.expression}\n```"
        for alert in ALERTS
    ).replace(", for 0 minutes", "")


def _plain(summary: str) -> str:
    return re.sub(r"\{\{ \$labels\.(\w+) }}", r"`\1`", summary)
