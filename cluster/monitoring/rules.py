"""Rules of Prometheus, and the files of promtool that test the rules."""

from __future__ import annotations

import re
from collections.abc import Iterable

import yaml

from cluster.monitoring.alerts import ALERTS, RECORDINGS
from cluster.monitoring.dashboards import DASHBOARDS
from cluster.monitoring.model import Alert, Planted, Query

Document = dict[str, object]  # of YAML
RUNBOOK = "docs/monitoring.md"
_EVAL_MINUTES = 30  # of the queries that return data only on a fault


def rule_groups() -> list[Document]:
    """Return all rules, as Prometheus and the operator's PrometheusRule have them."""
    recordings: list[Document] = [
        {"record": rule.series, "expr": rule.expression} for rule in RECORDINGS
    ]
    return [
        {"name": "finsent-recordings", "rules": recordings},
        {"name": "finsent-alerts", "rules": [_rule(alert) for alert in ALERTS]},
    ]


def _rule(alert: Alert) -> Document:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": f"{alert.minutes}m",
        "labels": _labels(alert),
        "annotations": _annotations(alert),
    }


def _labels(alert: Alert) -> dict[str, str]:
    return {"severity": alert.severity, "service": "finsent"}


def _annotations(alert: Alert) -> dict[str, str]:
    return {
        "summary": alert.summary,
        "description": alert.action,
        "runbook": f"{RUNBOOK}#{alert.name.lower()}",
    }


def rule_tests(rules_file: str) -> Document:
    """Return the tests of all alerts, and of the queries that return data only on a fault."""
    alert_tests = (
        _alert_test(alert, series, fires=fires)
        for alert in ALERTS
        for series, fires in ((alert.fires, True), (alert.quiet, False))
    )
    return {
        "rule_files": [rules_file],
        "evaluation_interval": "5m",  # promtool takes 18 CPU seconds with 1m
        "tests": [*alert_tests, *map(_query_test, planted_queries())],
    }


def planted_queries() -> Iterable[Query]:
    """Yield the queries of dashboards that return data only on a fault, or with a GPU."""
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            yield from (query for query in panel.queries if query.planted)


def _alert_test(alert: Alert, series: Iterable[Planted], *, fires: bool) -> Document:
    values = dict(alert.labels)
    annotations = {
        name: re.sub(r"\{\{ \$labels\.(\w+) }}", lambda match: values[match[1]], text)
        for name, text in _annotations(alert).items()
    }
    expected = {"exp_labels": {**_labels(alert), **values}, "exp_annotations": annotations}
    return {
        "name": f"{alert.name} {'fires' if fires else 'stays quiet'}",
        "interval": "1m",
        "input_series": _series(series),
        "alert_rule_test": [
            {
                "eval_time": f"{alert.hours:g}h",
                "alertname": alert.name,
                "exp_alerts": [expected] if fires else [],
            }
        ],
    }


def _query_test(query: Query) -> Document:
    """Return a test that a query counts one series."""
    return {
        "name": f"{query.legend} with data",
        "interval": "1m",
        "input_series": _series(query.planted),
        "promql_expr_test": [
            {
                "expr": f"count({for_all_runs(query.expression)})",
                "eval_time": f"{_EVAL_MINUTES}m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }


def for_all_runs(expression: str) -> str:
    """Return a dashboard's expression with all runs selected."""
    return expression.replace("$run", ".+")


def _series(series: Iterable[Planted]) -> list[Document]:
    return [{"series": planted.series, "values": planted.values} for planted in series]


def to_yaml(document: object, comment: str) -> str:
    """Return a document as YAML below a comment."""
    return f"# {comment}\n" + yaml.safe_dump(document, sort_keys=False, width=100)
