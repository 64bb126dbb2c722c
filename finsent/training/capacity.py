"""Whether a cluster can hold what is asked, before anything waits for it."""

from __future__ import annotations

from finsent.errors import InputError
from finsent.training.config import TrainConfig


def check_capacity(config: TrainConfig) -> bool:
    """Whether to use GPUs, after checking that the cluster holds the workers.

    Raises:
        InputError: it never will. The message has the numbers.
    """
    import ray  # here, so that jobs fail early without it

    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), total.get("GPU", 0.0)
    workers = config.min_workers  # of an elastic run: with these it can begin
    wanted = workers * config.gpus_per_worker
    if config.use_gpu == "yes" and gpus < wanted:
        raise InputError(
            f"train.use_gpu='yes' with train.num_workers={workers} needs {wanted:g} GPUs, but the "
            f"cluster has {gpus:g}; lower train.num_workers, or set train.use_gpu=no"
        )
    needed = workers * config.cpus_per_worker + 1  # one for Ray Data
    places = sum(
        int(node["Resources"].get("CPU", 0)) // config.cpus_per_worker
        for node in ray.nodes()
        if node["Alive"]
    )
    if cpus < needed or places < workers:
        raise InputError(
            f"train.num_workers={workers} x train.cpus_per_worker={config.cpus_per_worker}, and 1 "
            f"for Ray Data, need {needed} CPUs, but the cluster has {cpus}, with room for {places} "
            "such workers; lower them, or raise ray.num_cpus (logical CPUs) of a local Ray"
        )
    return config.use_gpu != "no" and gpus >= wanted
