"""How many trials a cluster has room for at the same time."""

from __future__ import annotations

import os
from collections.abc import Mapping

import ray

from finsent.training.capacity import check_capacity
from finsent.training.config import TrainConfig


def room(config: TrainConfig) -> int:
    """Trials that fit beside each other with one CPU left for Ray Data, at least 1.

    On a single machine no more than its cores can work for: Ray's CPUs are logical.

    Raises:
        InputError: the cluster cannot hold the workers of a single one.
    """
    use_gpu = check_capacity(config)
    total, workers = ray.cluster_resources(), config.max_workers
    nodes = [node for node in ray.nodes() if node["Alive"]]
    share = config.cpus_per_worker
    fitting = sum(places(node["Resources"], config, use_gpu) for node in nodes)
    found = min((int(total.get("CPU", 0)) - 1) // (workers * share), fitting // workers)
    if not use_gpu and len(nodes) == 1:
        found = min(found, len(os.sched_getaffinity(0)) // (workers * share))
    return max(found, 1)


def places(resources: Mapping[str, float], config: TrainConfig, use_gpu: bool) -> int:
    """Workers that fit on a machine; a share of a GPU lies on a single one."""
    found = int(resources.get("CPU", 0)) // config.cpus_per_worker
    if use_gpu:
        found = min(found, int(resources.get("GPU", 0)) * int(1 / config.gpus_per_worker + 1e-6))
    return found
