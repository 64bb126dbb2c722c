"""The number of trials that fit on the cluster at the same time."""

from __future__ import annotations

import os

from finsent.cluster import Cluster
from finsent.training.capacity import check_capacity
from finsent.training.config import TrainConfig


def max_concurrent_trials(config: TrainConfig) -> int:
    """Return the number of trials that fit with one CPU left for Ray Data, at least 1.

    On a single machine without GPUs the number is limited by its cores: Ray's CPUs are logical.

    Raises:
        InputError: the cluster cannot hold the workers of one trial.
    """
    use_gpu = check_capacity(config)
    cluster, workers = Cluster.connected(), config.max_workers
    cpus_per_trial = workers * config.cpus_per_worker
    slots = cluster.slots(config.cpus_per_worker, config.gpus_per_worker if use_gpu else 0.0)
    trials = min((cluster.cpus - 1) // cpus_per_trial, slots // workers)
    if not use_gpu and len(cluster.nodes) == 1:
        trials = min(trials, len(os.sched_getaffinity(0)) // cpus_per_trial)
    return max(trials, 1)
