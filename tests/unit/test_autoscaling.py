"""Replicas by the time that waiting work takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from serve_app.deployments.autoscaling import DrainTime, replica_count


@pytest.mark.parametrize(
    ("drains", "replicas", "expected"),
    [
        ([], 1, 1),
        ([0.0], 1, 1),
        ([0.5], 1, 1),  # just the target
        ([0.6], 1, 2),
        ([5.0], 1, 10),
        ([0.5, 0.5], 2, 2),
        ([0.4, 0.4], 2, 2),  # one would do, but barely: no swinging
        ([0.1, 0.1], 2, 1),
        ([0.0, 0.0, 0.0], 3, 1),
        ([0.3, 0.3, 0.3], 3, 3),
    ],
)
def test_growing_follows_the_load_and_shrinking_waits(
    drains: list[float], replicas: int, expected: int
) -> None:
    assert replica_count(drains, replicas, 0.5) == expected


def test_more_work_never_means_fewer_replicas() -> None:
    for replicas in range(1, 6):
        counts = [replica_count([work / 10], replicas, 0.5) for work in range(100)]
        assert counts == sorted(counts)
        assert min(counts) >= 1


def test_policy_reads_what_replicas_record() -> None:
    context = SimpleNamespace(
        aggregated_metrics={"drain_seconds": {"a": 1.0, "b": 2.0}, "queue_tokens": {"a": 9}},
        current_num_replicas=2,
    )
    assert DrainTime(target_seconds=0.5)(context) == (6, {})
    empty = SimpleNamespace(aggregated_metrics={}, current_num_replicas=3)
    assert DrainTime(target_seconds=0.5)(empty) == (1, {})
