"""The files of cluster/monitoring: made from the list of metrics, and accepted by their programs.

tests/slow/test_monitoring.py runs every query on metrics of a live service, training and ingest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.monitoring.alerts import ALERTS
from cluster.monitoring.dashboards import DASHBOARDS
from cluster.monitoring.generated import FOLDER, RULE_TESTS, RULES, generated_files
from cluster.monitoring.model import Dashboard
from cluster.monitoring.rules import rule_groups
from finsent.metric_list import JOB_METRICS, SERVICE_METRICS, Metric
from tests.commands import PROJECT

pytestmark = pytest.mark.unit

METRICS = [*SERVICE_METRICS, *JOB_METRICS]
MONITORING = PROJECT / FOLDER
COMPOSE = PROJECT / "cluster" / "compose" / "docker-compose.yaml"
KUBERNETES = PROJECT / "cluster" / "kubernetes" / "components" / "monitoring"
_LEAF = {"type": "string"}
_STRINGS = {"type": "array", "items": _LEAF}
_METADATA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"name": _LEAF, "namespace": _LEAF, "labels": {"type": "object"}},
}


def closed(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these optional fields and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


# The fields of the Prometheus operator's API that the manifests use.
RULE = closed(alert=_LEAF, record=_LEAF, expr=_LEAF, labels={}, annotations={}, **{"for": _LEAF})
RELABELING = closed(sourceLabels=_STRINGS, regex=_LEAF, targetLabel=_LEAF, action=_LEAF)
SPECS = {
    "PrometheusRule": closed(groups=listed(closed(name=_LEAF, rules=listed(RULE)))),
    "PodMonitor": closed(
        jobLabel=_LEAF,
        selector=closed(matchLabels={"type": "object"}),
        podMetricsEndpoints=listed(
            closed(port=_LEAF, interval=_LEAF, metricRelabelings=listed(RELABELING))
        ),
    ),
}


def program(name: str) -> str:
    """Return the path of a program; skip the test, or in CI fail, where it is missing."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed. Run .ci/programs {name}."
        if "CI" in os.environ:
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(name: str, *arguments: str, cwd: Path = MONITORING) -> str:
    """Return the output of a program that must succeed."""
    done = subprocess.run(
        [program(name), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def expressions() -> list[str]:
    """Return all expressions of dashboards and rules."""
    queries = [q for d in DASHBOARDS for panel in d.panels for q in panel.queries]
    rules = [rule for group in rule_groups() for rule in group["rules"]]  # type: ignore[attr-defined]
    return [query.expression for query in queries] + [rule["expr"] for rule in rules]


@pytest.mark.parametrize("name", generated_files())
def test_committed_files_are_the_generated_ones(name: str) -> None:
    text = (PROJECT / name).read_text(encoding="utf-8")
    assert text == generated_files()[name], "run `python -m cluster.monitoring`"


def test_expressions_use_listed_metrics_only() -> None:
    names = {metric.series for metric in METRICS}
    for expression in expressions():
        for series in re.findall(r"\bfinsent_\w+", expression):
            assert re.sub(r"_(bucket|sum|count)$", "", series) in names, expression


def test_each_metric_is_on_a_dashboard_or_in_an_alert() -> None:
    text = "\n".join(expressions())
    unused = {metric.name for metric in METRICS if metric.series not in text}
    assert unused == {"key_requests", "queue_tokens"}  # for questions about a client or a replica


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_labels_of_expressions_exist(metric: Metric) -> None:
    for expression in expressions():
        for labels in re.findall(rf"{metric.series}(?:_bucket)?\{{([^}}]*)\}}", expression):
            used = set(re.findall(r"(\w+)[=!]", labels))
            assert used <= {*metric.labels, "le"}, expression


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_dashboards_have_distinct_panels_on_a_grid(dashboard: Dashboard) -> None:
    document = json.loads((MONITORING / f"grafana/dashboards/{dashboard.name}.json").read_text())
    cells = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in document["panels"]]
    assert len(set(cells)) == len(cells) == len(dashboard.panels)
    assert len({panel["title"] for panel in document["panels"]}) == len(cells)
    assert len({panel["id"] for panel in document["panels"]}) == len(cells)
    variables = {variable["name"] for variable in document["templating"]["list"]}
    text = json.dumps(document["panels"])
    assert ("run" in variables) == ("$run" in text) == dashboard.selects_run


def test_each_alert_has_a_section_in_the_docs() -> None:
    page = (PROJECT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    assert all(f"\n### {alert.name}\n" in page for alert in ALERTS)
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


@pytest.mark.cost(8, "promtool evaluates all rules for all planted series")
def test_each_alert_fires_on_its_planted_series_and_on_no_others() -> None:
    run("promtool", "check", "rules", Path(RULES).name)
    assert "SUCCESS" in run("promtool", "test", "rules", Path(RULE_TESTS).name)


@pytest.mark.cost(2, "starts promtool")
def test_an_alert_that_never_fires_fails_its_test(tmp_path: Path) -> None:
    rules = (PROJECT / RULES).read_text(encoding="utf-8")
    (tmp_path / Path(RULES).name).write_text(rules.replace("== 0", "== 7"), encoding="utf-8")
    tests = yaml.safe_load((PROJECT / RULE_TESTS).read_text(encoding="utf-8"))
    tests["tests"] = [test for test in tests["tests"] if "NoReadyReplica" in test["name"]]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests), encoding="utf-8")
    command = [program("promtool"), "test", "rules", str(tmp_path / "tests.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FinsentNoReadyReplica" in done.stdout + done.stderr


@pytest.mark.cost(2, "starts promtool")
def test_prometheus_accepts_the_configuration_of_compose(tmp_path: Path) -> None:
    text = (COMPOSE.parent / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("/etc/prometheus/rules.yml", str(PROJECT / RULES))
    (tmp_path / "key").touch()
    text = text.replace("/run/secrets/metrics_key", str(tmp_path / "key"))
    (tmp_path / "prometheus.yml").write_text(text, encoding="utf-8")
    assert "SUCCESS" in run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))


@pytest.mark.cost(2, "starts amtool")
def test_critical_alerts_go_to_the_person_on_call() -> None:
    assert "SUCCESS" in run("amtool", "check-config", "alertmanager.yml")
    for alert in ALERTS:
        receiver = run(
            "amtool",
            "config",
            "routes",
            "test",
            "--config.file=alertmanager.yml",
            f"alertname={alert.name}",
            f"severity={alert.severity}",
        )
        expected = {"critical": "on-call", "warning": "team"}[alert.severity]
        assert receiver.strip() == expected


def test_grafana_of_compose_reads_the_dashboards_and_asks_prometheus() -> None:
    services = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    by_target = {target: COMPOSE.parent / source for source, target in mounts.items()}
    provisioning = by_target["/etc/grafana/provisioning"]
    [provider] = yaml.safe_load((provisioning / "dashboards/finsent.yaml").read_text())["providers"]
    folder = by_target[provider["options"]["path"]]
    assert {path.stem for path in folder.glob("*.json")} == {d.name for d in DASHBOARDS}
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    [source] = sources["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "127.0.0.1:9090:9090" in services["prometheus"]["ports"]


@pytest.mark.parametrize("name", ["rules.yaml", "podmonitor.yaml"])
def test_manifests_of_the_prometheus_operator_have_known_fields(name: str) -> None:
    manifest = yaml.safe_load((KUBERNETES / name).read_text(encoding="utf-8"))
    schema = closed(
        apiVersion={"const": "monitoring.coreos.com/v1"},
        kind=_LEAF,
        metadata=_METADATA,
        spec=SPECS[manifest["kind"]],
    )
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError, match="unknown"):
        jsonschema.validate({**manifest, "unknown": 1}, schema)


@pytest.mark.cost(2, "starts kubectl")
def test_kustomize_renders_both_manifests() -> None:
    rendered = yaml.safe_load_all(run("kubectl", "kustomize", str(KUBERNETES)))
    assert {manifest["kind"] for manifest in rendered} == set(SPECS)


def test_pods_have_the_port_and_the_label_that_the_operator_selects() -> None:
    spec = yaml.safe_load((KUBERNETES / "podmonitor.yaml").read_text(encoding="utf-8"))["spec"]
    raycluster = PROJECT / "cluster" / "kubernetes" / "base" / "raycluster.yaml"
    cluster = yaml.safe_load(raycluster.read_text(encoding="utf-8"))["spec"]
    [endpoint] = spec["podMetricsEndpoints"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        template = group["template"]
        assert spec["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        [container] = template["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
    names = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in KUBERNETES.iterdir()} == {*names, "kustomization.yaml"}


def test_both_scrapers_give_metrics_of_jobs_their_listed_names() -> None:
    spec = yaml.safe_load((KUBERNETES / "podmonitor.yaml").read_text(encoding="utf-8"))["spec"]
    [of_operator] = spec["podMetricsEndpoints"][0]["metricRelabelings"]
    scrapes = yaml.safe_load((COMPOSE.parent / "prometheus.yml").read_text())["scrape_configs"]
    [of_compose] = scrapes[0]["metric_relabel_configs"]
    assert of_operator["regex"] == of_compose["regex"]
    assert of_operator["targetLabel"] == of_compose["target_label"] == "__name__"
    for metric in METRICS:
        match = re.fullmatch(of_compose["regex"], f"ray_{metric.series}")
        assert match is not None
        assert match[1] == metric.series
