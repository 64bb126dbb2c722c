"""Every query of dashboards and alerts, on metrics of a live service and live jobs.

tests/unit/test_monitoring.py tests alerts on planted series, and compares the made files.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.monitoring.alerts import ALERTS, RECORDINGS
from cluster.monitoring.dashboards import DASHBOARDS
from cluster.monitoring.draw import PrometheusClient, Series, draw_all
from cluster.monitoring.model import Dashboard
from cluster.monitoring.rules import for_all_runs
from finsent.metric_list import JOB_METRICS, SERVICE_METRICS
from tests.slow.monitored import ROWS, monitored, pictures_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="Prometheus: .ci/programs prometheus"
    ),
]
MINUTES = 8.0  # that requests and jobs take at most
MAX_BYTES = 200_000  # of a picture
# Need a divergence, a GPU or a rollout. tests/unit/test_monitoring.py plants their series.
ABSENT = re.compile(r"finsent_(train_divergences_total|train_gpu_bytes|rollout_\w+)")


@pytest.fixture(scope="module")
def client(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusClient]:
    """A Prometheus after requests and jobs."""
    with monitored(tmp_path_factory.mktemp("monitored"), tiny) as client:
        yield client


def recent(client: PrometheusClient, expression: str, legend: str = "") -> list[Series]:
    """Return the series of the last minutes: gauges of ended jobs are gone now."""
    return client.series(for_all_runs(expression), legend, time.time() - MINUTES * 60, time.time())


def names(client: PrometheusClient, pattern: str) -> set[str]:
    groups = recent(client, f'group by (__name__) ({{__name__=~"{pattern}"}})', "{{__name__}}")
    return {series.legend for series in groups}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_each_query_returns_data(client: PrometheusClient, dashboard: Dashboard) -> None:
    for panel in dashboard.panels:
        for query in panel.queries:
            if not query.planted and not ABSENT.search(query.expression):
                assert recent(client, query.expression), (panel.title, query.expression)


def test_ray_exports_each_metric(client: PrometheusClient) -> None:
    exported = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names(client, "finsent_.+")}
    metrics = [*SERVICE_METRICS, *JOB_METRICS]
    missing = {metric.series for metric in metrics if metric.series not in exported}
    assert not [series for series in missing if not ABSENT.fullmatch(series)]
    assert exported - {metric.series for metric in metrics} == set()


def test_a_replica_offers_each_metric_of_the_service_to_a_key_of_an_admin(
    client: PrometheusClient,
) -> None:
    of_replica = names(client, "replica_finsent_.+")
    missing = {
        metric.series
        for metric in SERVICE_METRICS
        if not any(name.startswith(f"replica_{metric.series}") for name in of_replica)
    }
    assert not [series for series in missing if not ABSENT.fullmatch(series)]


def test_alerts_read_existing_series_and_are_quiet(client: PrometheusClient) -> None:
    for rule in RECORDINGS:
        assert recent(client, rule.series), rule.series
    for alert in ALERTS:
        for name in re.findall(r"\b(?:finsent|ray)_\w+", alert.expression):
            assert ABSENT.fullmatch(name) or names(client, name), (alert.name, name)
    # The disk of this machine may be nearly full.
    assert not client.now('ALERTS{alertstate="firing",alertname!="FinsentDiskNearlyFull"}')


def test_values_are_those_of_the_jobs(client: PrometheusClient) -> None:
    def largest(expression: str) -> float:
        return max(float(series.values.max()) for series in recent(client, expression))

    rejected = 'max(finsent_ingest_rejected_rows{reason!="none"})'
    assert largest("max(finsent_ingest_rows)") == ROWS + 1
    assert largest(rejected) == 1
    assert 0 < largest('max(finsent_train_progress_ratio{run="news"})') <= 1
    assert largest('max(finsent_train_workers{run="news"})') == 1
    assert 0 < largest('max(finsent_train_macro_f1{run="news"})') <= 1
    assert largest('sum(finsent_predict_rows_total{run="archive"})') == ROWS + 1
    assert largest('sum(finsent_sweep_trials_total{run="search"})') == 2
    assert largest("sum(finsent_ready)") == 1


def test_dashboards_are_drawn(client: PrometheusClient, tmp_path: Path) -> None:
    folder = pictures_folder(tmp_path)
    draw_all(client, folder, MINUTES)
    for dashboard in DASHBOARDS:
        assert 10_000 < (folder / f"dashboard-{dashboard.name}.png").stat().st_size < MAX_BYTES
