"""The list of metrics, and what exports them. tests/slow/test_monitoring.py scrapes them."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from finsent.job_metrics import JobMetrics
from finsent.metric_list import (
    JOB_METRICS,
    SERVICE_METRICS,
    TRAIN_LOSS,
    TRAIN_ROWS,
    Metric,
)
from finsent.training.exported_metrics import run_label

pytestmark = pytest.mark.unit
METRICS = [*SERVICE_METRICS, *JOB_METRICS]
_RESERVED = {"job", "instance", "le", "deployment", "replica", "application", "route"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_labels_are_valid(metric: Metric) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", metric.name)
    assert not metric.name.endswith("_total")
    assert metric.text.endswith(".")
    assert metric.unit
    assert not _RESERVED & {*metric.labels}
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)


def test_names_are_unique() -> None:
    assert len({metric.series for metric in METRICS}) == len(METRICS)


def test_without_ray_nothing_is_exported() -> None:
    threads = threading.active_count()
    with JobMetrics(run="first") as metrics:
        metrics.set(TRAIN_LOSS, 0.5)
        metrics.add(TRAIN_ROWS, 3)
        assert threading.active_count() == threads


@pytest.mark.parametrize(
    ("run_dir", "label"),
    [("runs/first", "first"), ("runs/search/trials/0007", "search/0007")],
)
def test_trials_of_two_sweeps_have_different_labels(run_dir: str, label: str) -> None:
    assert run_label(Path(run_dir)) == label
