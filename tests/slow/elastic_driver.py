"""A program for a test: an elastic run on its own cluster, which loses a node and gains one.

The run is interrupted after the last change, however many epochs the changes take. Prints the
logged steps, the number of workers of each, and the metrics as JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.cluster_utils import Cluster

from finsent.labels import LABELS
from finsent.modeling.backbone import Backbone
from finsent.modeling.provenance import Provenance
from finsent.modeling.random_backbones import tiny_backbone
from finsent.training.config import TrainConfig
from finsent.training.finished_run import export_best
from finsent.training.metrics_log import read_epochs, read_steps
from finsent.training.ray_trainer import fit_tokenized
from finsent.training.task import Task
from finsent.training.tokens import tokenize
from tests.commands import wait_until

ROWS, HELD_OUT = 2000, 60
WORDS = {"negative": "loss widened", "neutral": "meeting held", "positive": "profit rose"}
QUICK = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


def rows(tiny: Path, count: int, start: int) -> pa.Table:
    labels = [LABELS[i % 3] for i in range(start, start + count)]
    texts = [f"Item {i}: {WORDS[label]} {'again ' * (i % 40)}" for i, label in enumerate(labels)]
    keys = [f"{i:06d}" for i in range(start, start + count)]
    return tokenize(pa.table({"key": keys, "text": texts, "label": labels}), str(tiny), None, 64)


def task(tiny: Path) -> Task:
    config = TrainConfig(
        num_workers=(1, 2),
        resize_every=1,
        epochs=1000,  # never reached
        batch_size=32,
        learning_rate=1e-3,
        warmup_steps=20,
        checkpoint_every_steps=20,
        log_every_steps=5,
        start_timeout=5,
    )
    return Task(config, Backbone("tiny", str(tiny)), Provenance(max_length=64))


def train(address: str, tiny: Path, run_dir: Path) -> None:
    """Train on a cluster until SIGINT."""
    ray.init(address=address, log_to_driver=False)
    splits = {
        "train": ray.data.from_arrow(rows(tiny, ROWS, 0)),
        "validation": ray.data.from_arrow(rows(tiny, HELD_OUT, ROWS)),
    }
    with suppress(KeyboardInterrupt):
        fit_tokenized(task(tiny), splits, run_dir)
    ray.shutdown()


def change_cluster(cluster: Cluster, doomed: Any, run_dir: Path) -> None:
    """Remove a node, and add another one, each after the workers have trained with the last change.

    Returns when the next epoch after the last change has ended.
    """

    def trains_with(workers: int) -> bool:
        # 50 steps, so that some are in a checkpoint: a resize computes later ones again.
        newest = [line.workers for line in read_steps(run_dir)[-10:]]
        return newest == [workers] * 10

    wait_until(lambda: trains_with(2), 180, "two workers to train")
    cluster.remove_node(doomed, allow_graceful=False)
    cluster.add_node(num_cpus=0)  # a node without room changes nothing
    wait_until(lambda: trains_with(1), 180, "one worker to resume")
    cluster.add_node(num_cpus=1)
    wait_until(lambda: trains_with(2), 180, "two workers to resume")
    epochs = len(read_epochs(run_dir))
    wait_until(lambda: len(read_epochs(run_dir)) > epochs, 180, "an epoch to end")


def main(folder: Path) -> None:
    """Train with two workers, with one after a node is lost, and with two after one is added."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "_system_config": QUICK},
    )
    doomed = cluster.add_node(num_cpus=1)
    arguments = (cluster.address, tiny_backbone(folder), folder / "run")
    training = multiprocessing.get_context("spawn").Process(target=train, args=arguments)
    training.start()
    try:
        change_cluster(cluster, doomed, folder / "run")
        os.kill(training.pid or 0, signal.SIGINT)
        training.join(60)
        assert training.exitcode == 0, training.exitcode
    finally:
        training.kill()
        cluster.shutdown()
    steps, result = read_steps(folder / "run"), export_best(folder / "run")
    print(  # noqa: T201
        json.dumps(
            {
                "steps": [line.step for line in steps],
                "workers": [line.workers for line in steps],
                "rows": [metrics.train_rows for metrics in result.history],
                "macro_f1": result.best.macro_f1,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
