"""How many trials fit on the cluster at the same time."""

from __future__ import annotations

import os
from collections.abc import Mapping

import ray

from finsent.training.capacity import check_capacity
from finsent.training.config import TrainConfig


def max_concurrent_trials(config: TrainConfig) -> int:
    """Return the number of trials that fit with one CPU left for Ray Data, at least 1.

    On a single machine without GPUs the number is limited by its cores: Ray's CPUs are logical.

    Raises:
        InputError: the cluster cannot hold the workers of one trial.
    """
    use_gpu = check_capacity(config)
    workers, cpus = config.max_workers, config.cpus_per_worker
    nodes = [node for node in ray.nodes() if node["Alive"]]
    slots = sum(worker_slots(node["Resources"], config, use_gpu) for node in nodes)
    free_cpus = int(ray.cluster_resources().get("CPU", 0)) - 1
    trials = min(free_cpus // (workers * cpus), slots // workers)
    if not use_gpu and len(nodes) == 1:
        trials = min(trials, len(os.sched_getaffinity(0)) // (workers * cpus))
    return max(trials, 1)


def worker_slots(resources: Mapping[str, float], config: TrainConfig, use_gpu: bool) -> int:
    """Return the number of workers that fit on a machine; a worker's GPU share is on one GPU."""
    slots = int(resources.get("CPU", 0)) // config.cpus_per_worker
    if use_gpu:
        workers_per_gpu = int(1 / config.gpus_per_worker + 1e-6)
        slots = min(slots, int(resources.get("GPU", 0)) * workers_per_gpu)
    return slots
