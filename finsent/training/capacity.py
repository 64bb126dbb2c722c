"""Checks of the cluster and the disk before a training starts."""

from __future__ import annotations

from pathlib import Path

from finsent.cluster import Cluster
from finsent.disk import check_free_space
from finsent.errors import InputError
from finsent.training.config import TrainConfig


def check_capacity(config: TrainConfig) -> bool:
    """Check that the cluster can hold the workers; return whether to use GPUs.

    Raises:
        InputError: the cluster never can. The message has the numbers.
    """
    cluster = Cluster.connected()
    cpus, gpus = cluster.cpus, cluster.gpus
    workers = config.min_workers  # an elastic run can start with these
    needed_gpus = workers * config.gpus_per_worker
    if config.use_gpu == "yes" and gpus < needed_gpus:
        raise InputError(
            f"train.use_gpu='yes': train.num_workers={workers} needs {needed_gpus:g} GPUs, but the "
            f"cluster has {gpus:g}. Lower train.num_workers, or set train.use_gpu=no."
        )
    needed_cpus = workers * config.cpus_per_worker + 1  # one for Ray Data
    slots = cluster.slots(config.cpus_per_worker)
    if cpus < needed_cpus or slots < workers:
        raise InputError(
            f"train.num_workers={workers}: with train.cpus_per_worker={config.cpus_per_worker}, "
            f"and 1 for Ray Data, needs {needed_cpus} CPUs, but the cluster has {cpus}, with room "
            f"for {slots} such workers. Lower the settings, or raise ray.num_cpus (logical CPUs) "
            "of a local Ray."
        )
    return config.use_gpu != "no" and gpus >= needed_gpus


def check_disk(
    config: TrainConfig, weight_bytes: int, run_dir: Path, checkpoint_count: int, epochs: int
) -> None:
    """Check that the file system has room for the checkpoints, before a long training.

    The estimate is low: the newest two checkpoints and the one that is being written.

    Args:
        weight_bytes: of the model's weights.
        checkpoint_count: checkpoints that the run has.
        epochs: finished epochs of the run.

    Raises:
        DiskError: there is clearly too little room. The message has the numbers.
    """
    epochs_left = config.epochs - epochs
    if epochs_left <= 0:
        return
    most = 3 if config.patience is None else 2  # with patience, the run may end early
    new = max(1, min(checkpoint_count + epochs_left, most) - checkpoint_count)
    # AdamW stores two numbers per weight that is trained from the first step on.
    moments = 2 if config.lora_rank is None and not config.unfreeze_epochs else 0
    check_free_space(run_dir, new * (1 + moments) * weight_bytes, "storage.root")
