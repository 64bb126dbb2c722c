"""Whether a cluster can hold what is asked, before anything waits for it."""

from __future__ import annotations

from pathlib import Path

from finsent.cluster import Cluster
from finsent.disk import check_free_space
from finsent.errors import InputError
from finsent.training.config import TrainConfig


def check_capacity(config: TrainConfig) -> bool:
    """Whether to use GPUs, after checking that the cluster holds the workers.

    Raises:
        InputError: it never will. The message has the numbers.
    """
    cluster = Cluster.connected()
    cpus, gpus = cluster.cpus, cluster.gpus
    workers = config.min_workers  # of an elastic run: with these it can begin
    wanted = workers * config.gpus_per_worker
    if config.use_gpu == "yes" and gpus < wanted:
        raise InputError(
            f"train.use_gpu='yes' with train.num_workers={workers} needs {wanted:g} GPUs, but the "
            f"cluster has {gpus:g}; lower train.num_workers, or set train.use_gpu=no"
        )
    needed = workers * config.cpus_per_worker + 1  # one for Ray Data
    places = cluster.slots(config.cpus_per_worker)
    if cpus < needed or places < workers:
        raise InputError(
            f"train.num_workers={workers} x train.cpus_per_worker={config.cpus_per_worker}, and 1 "
            f"for Ray Data, need {needed} CPUs, but the cluster has {cpus}, with room for {places} "
            "such workers; lower them, or raise ray.num_cpus (logical CPUs) of a local Ray"
        )
    return config.use_gpu != "no" and gpus >= wanted


def check_disk(
    config: TrainConfig, weights: int, run_dir: Path, checkpoints: int, epochs: int
) -> None:
    """Fail before a long training where its checkpoints clearly find no room.

    They need at least what is computed here: the newest two and the one that is being written.

    Args:
        weights: bytes of the model's weights.
        checkpoints: that the run has already.
        epochs: that the run has finished.

    Raises:
        DiskError: the message has the numbers.
    """
    left = config.epochs - epochs
    if left <= 0:
        return
    most = 3 if config.patience is None else 2  # it may end early
    new = max(1, min(checkpoints + left, most) - checkpoints)
    # AdamW keeps two numbers per weight that is trained from the first step on.
    states = 2 if config.lora_rank is None and not config.unfreeze_epochs else 0
    check_free_space(run_dir, new * (1 + states) * weights, "storage.root")
